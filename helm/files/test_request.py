"""Post one request and check that every part of the answer that has offsets is the text at them."""

import json
import os
import sys
import urllib.request

url, body = sys.argv[1:]
inputs = json.loads(body)["inputs"]
text = inputs if isinstance(inputs, str) else inputs["context"]
headers = {"content-type": "application/json"}
if "KEY" in os.environ:
    headers["authorization"] = f"Bearer {os.environ['KEY']}"
request = urllib.request.Request(url, body.encode(), headers)
with urllib.request.urlopen(request, timeout=30) as response:
    answer = json.load(response)
for part in answer if isinstance(answer, list) else [answer]:
    if "start" in part:
        assert text[part["start"] : part["end"]] in part.values(), part
print(json.dumps(answer, ensure_ascii=False))
