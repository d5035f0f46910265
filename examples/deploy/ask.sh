# What serve.sh serves, asked with curl: whole, in pieces, without a chat template, and with a mistake that is explained.
base=http://127.0.0.1:8000

curl -s $base/v1/models
echo
curl -s $base/v1/chat/completions -H 'Content-Type: application/json' -d '{
  "model": "tiny", "messages": [{"role": "user", "content": "What is 12 + 30?"}], "temperature": 0}'
echo
curl -sN $base/v1/chat/completions -H 'Content-Type: application/json' -d '{
  "model": "tiny", "messages": [{"role": "user", "content": "Think first: 47 + 38 = ?"}], "temperature": 0, "stream": true}'
curl -s $base/v1/completions -H 'Content-Type: application/json' -d '{
  "model": "tiny", "prompt": "The capital of", "max_tokens": 8, "temperature": 0}'
echo
curl -s $base/v1/chat/completions -H 'Content-Type: application/json' -d '{
  "model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "temprature": 0}'
echo
curl -s $base/metrics | grep swift_requests_total
