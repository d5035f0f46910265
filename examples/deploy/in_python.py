"""A server in the background of a Python program, for as long as a block runs."""

import json
import urllib.request

from swift import run_deploy


def main():
    with run_deploy('tiny', device='cpu', temperature=0) as server:  # deploy('tiny', …) serves until a signal instead
        body = {'model': 'tiny', 'messages': [{'role': 'user', 'content': 'What is 12 + 30?'}]}
        request = urllib.request.Request(f'{server.url}/chat/completions', json.dumps(body).encode(), {'Content-Type': 'application/json'})
        with urllib.request.urlopen(request) as answer:
            print(json.load(answer)['choices'][0]['message']['content'])


if __name__ == '__main__':
    main()
