"""Run in the environment of optimum-onnx: opens a bundle with optimum and transformers alone and prints what they say.

python open_with_optimum.py <bundle> <task> <file> '<JSON arguments of the tokenizer>'
"""

import json
import sys

import optimum.onnxruntime
from transformers import AutoTokenizer, pipeline

HEADS = {
    "ner": ("ORTModelForTokenClassification", "token-classification", {"aggregation_strategy": "first"}),
    "pos": ("ORTModelForTokenClassification", "token-classification", {"aggregation_strategy": "first"}),
    "nli": ("ORTModelForSequenceClassification", "text-classification", {"top_k": None}),
    "qa": ("ORTModelForQuestionAnswering", "question-answering", {}),
}

folder, task, file, inputs = sys.argv[1:]
head, name, options = HEADS[task]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = getattr(optimum.onnxruntime, head).from_pretrained(folder, file_name=file)
texts = json.loads(inputs)
encoded = tokenizer(*texts, return_tensors="pt")
outputs = model(**encoded)
names = ["start_logits", "end_logits"] if task == "qa" else ["logits"]
run = pipeline(name, model=model, tokenizer=tokenizer)
if task == "qa":
    answer = run(question=texts[0], context=texts[1])
else:
    answer = run({"text": texts[0], "text_pair": texts[1]} if len(texts) > 1 else texts[0], **options)
print(
    json.dumps(
        {
            "ids": encoded["input_ids"].tolist(),
            "outputs": {key: outputs[key].tolist() for key in names},
            "pipeline": answer,
        },
        default=float,
    )
)
