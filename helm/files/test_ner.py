"""Post one text to the NER route and check that every entity is the text at its offsets."""

import json
import os
import sys
import urllib.request

url, text = sys.argv[1:]
body = json.dumps({"inputs": text}).encode()
headers = {"content-type": "application/json"}
if "KEY" in os.environ:
    headers["authorization"] = f"Bearer {os.environ['KEY']}"
request = urllib.request.Request(url, body, headers)
with urllib.request.urlopen(request, timeout=30) as response:
    entities = json.load(response)
for entity in entities:
    assert text[entity["start"] : entity["end"]] == entity["word"], entity
print(json.dumps(entities, ensure_ascii=False))
