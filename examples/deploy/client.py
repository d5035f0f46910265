"""A server of serve.sh asked by OpenAI's client (`pip install openai`): an answer, a stream, a call of a tool."""

from openai import OpenAI

WEATHER = {
    'type': 'function',
    'function': {
        'name': 'get_weather',
        'description': 'Weather of a city.',
        'parameters': {'type': 'object', 'properties': {'city': {'type': 'string', 'description': 'Name of the city'}}, 'required': ['city']},
    },
}


def main():
    client = OpenAI(api_key='EMPTY', base_url='http://127.0.0.1:8000/v1')
    model = client.models.list().data[0].id

    question = [{'role': 'user', 'content': 'What is 12 + 30?'}]
    answer = client.chat.completions.create(model=model, messages=question, temperature=0)
    print(answer.choices[0].message.content, answer.usage.completion_tokens)

    question = [{'role': 'user', 'content': 'Think first: 47 + 38 = ?'}]
    said = False
    for piece in client.chat.completions.create(model=model, messages=question, temperature=0, stream=True):
        delta = piece.choices[0].delta
        print(getattr(delta, 'reasoning_content', None) or '', end='')
        if delta.content:
            print(f'\n= {delta.content}' if not said else delta.content, end='')
            said = True
    print()

    question = [{'role': 'user', 'content': 'How is the weather in Moscow?'}]
    answer = client.chat.completions.create(model=model, messages=question, tools=[WEATHER], temperature=0)
    for call in answer.choices[0].message.tool_calls or []:
        print(call.function.name, call.function.arguments)


if __name__ == '__main__':
    main()
