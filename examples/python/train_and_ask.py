"""The same from Python: train an adapter, then ask the model with it."""

from swift import AdapterRequest, InferRequest, RequestConfig, TransformersEngine, sft_main


def main():
    result = sft_main(
        [
            '--model', 'tiny', '--dataset', 'examples/data/new_words.jsonl', '--lora_rank', '16',
            '--num_train_epochs', '12', '--per_device_train_batch_size', '8', '--learning_rate', '4e-3',
            '--output_dir', 'output/python',
        ]
    )  # fmt: skip
    checkpoint = result['last_model_checkpoint']
    print('trained', result['global_step'], 'steps:', checkpoint)

    engine = TransformersEngine('tiny')
    question = [InferRequest(messages=[{'role': 'user', 'content': 'What does bimo mean?'}])]
    config = RequestConfig(max_tokens=32, temperature=0)
    for name, adapter in (('before', None), ('after', AdapterRequest('new_words', checkpoint))):
        answer = engine.infer(question, config, adapter_request=adapter)[0]
        print(f'{name}:', answer.choices[0].message.content)


if __name__ == '__main__':
    main()
