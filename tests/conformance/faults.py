"""Losses with a fault that trains and looks right: texts that replace others of the good loss."""

UNIT = "unit = unit_length(embeddings)"
MASKS = "pair_masks(labels)"
WEIGHT = "self.weight = weight"
EXTRA = "extra = 0"
ENTROPY = "functional.cross_entropy(logits, labels)"

# Fault: the check that fails, its message, then texts of the good loss and what replaces them
TEN = {
    "a sum over triplets": (
        "growth",
        r"16 embeddings, and then 64: 4 times as many images .* power [23]\.\d of the batch",
        EXTRA,
        "margins = (cosine[:, None] - cosine[:, :, None] + 0.2).relu()\n"
        "        extra = (margins * positive[:, :, None] * negative[:, None]).sum()",
    ),
    "a mean times the batch": (
        "growth",
        r"power 1\.0 of the batch.* Do not multiply by len\(labels\)",
        EXTRA,
        "extra = len(labels) * functional.cross_entropy(logits, labels)",
    ),
    "bfloat16 for float32 embeddings": (
        "precision",
        r"an operator gives bfloat16, at made.py:\d+: embeddings = embeddings.bfloat16",
        UNIT,
        "if embeddings.dtype == torch.float32:\n"
        "            embeddings = embeddings.bfloat16().float()\n"
        f"        {UNIT}",
    ),
    "labels of 8 bits": (
        "many_classes",
        r"got the numbers 7, 263, .* Keep labels int64: take away \.to\(torch\.uint8\)",
        MASKS,
        "pair_masks(labels.to(torch.uint8))",
    ),
    "the first 64 dimensions": (
        "dimensions",
        r"same for 3\d of them: .* slice of fixed size \(embeddings\[:, :64\]\)",
        UNIT,
        f"{UNIT}\n        unit = unit * (torch.arange(unit.shape[1]) < 64)",
    ),
    "embeddings that are overwritten": (
        "inputs",
        r"The embeddings are others afterwards: row 0 began with .* Write out of place",
        UNIT,
        f"embeddings.data.mul_(2)\n        {UNIT}",
    ),
    "labels that are sorted": (
        "inputs",
        r"The labels are others afterwards: row 1 began with \[1\], and does with \[0\]",
        "return scale *",
        "labels.copy_(labels.sort().values)\n        return scale *",
    ),
    "another loss after 500 calls": (
        "repeats",
        r"at call 50\d\. What changes with the calls, it seems: self\.calls",
        WEIGHT,
        f"{WEIGHT}; self.calls = 0",
        EXTRA,
        "self.calls += 1; extra = pull * (self.calls > 500)",
    ),
    "labels by way of numpy": (
        "host",
        r"Tensor\.numpy\(\): a whole tensor goes to the host, at made.py.* Stay in torch",
        MASKS,
        "pair_masks(torch.from_numpy(labels.numpy()))",
    ),
    "a random scale": (
        "random",
        r"torch's global generator was changed.* samples no pairs, it scales",
        "return scale *",
        "scale = torch.rand(())\n        self = type('', (), {'weight': scale})\n"
        "        return scale *",
    ),
}
MORE = {
    "a sum over classes": (
        "growth",
        r"4 times as many classes",
        EXTRA,
        f"extra = len(self.proxies) * {ENTROPY}",
    ),
    "a small sum of pairs, over the batch": (
        "growth",
        r"16, 32 and 64 at a time.* 2\.0 times as much",
        " / positive.sum().clamp(min=1)",
        " / len(labels)",
    ),
    "float16 in every precision": (
        "precision",
        "an operator gives float16",
        "unit @ unit.T",
        "(unit.half() @ unit.half().T).to(unit.dtype)",
    ),
    "autocast inside": (
        "precision",
        "an operator gives bfloat16",
        "cosine = unit @ unit.T",
        "with torch.autocast('cpu', torch.bfloat16, enabled=unit.dtype == torch.float32):\n"
        "            cosine = unit @ unit.T\n        cosine = cosine.to(unit.dtype)",
    ),
    "ten bits as in TF32, by no narrow type": (
        "precision",
        r"They differ by \de-04 of their length or more.* fewer digits",
        UNIT,
        f"{UNIT}\n        if unit.dtype == torch.float32:\n"
        "            short = (unit.detach().view(torch.int32) & -8192).view(torch.float32)\n"
        "            unit = unit + (short - unit).detach()",
    ),
    "fast products for the whole process": (
        "precision",
        "It allowed TF32",
        EXTRA,
        "extra = 0; torch.set_float32_matmul_precision('medium')",
    ),
    "labels in bfloat16": (
        "many_classes",
        "bfloat16 tells them apart up to 256",
        MASKS,
        "pair_masks(labels.bfloat16())",
    ),
    "labels in float16": ("many_classes", "by the numbers", MASKS, "pair_masks(labels.half())"),
    "labels of 16 bits": (
        "many_classes",
        "by the numbers",
        MASKS,
        "pair_masks(labels.to(torch.int16))",
    ),
    "labels modulo 1000": ("many_classes", "by the numbers", MASKS, "pair_masks(labels % 1000)"),
    "proxies of labels modulo 512": (
        "many_classes",
        "by the numbers",
        ENTROPY,
        "functional.cross_entropy(logits, labels % 512)",
    ),
    "every other dimension": (
        "dimensions",
        "same for 6 of them: 1, 3, 5, 7, 9, 11",
        UNIT,
        f"{UNIT}\n        unit = unit * (torch.arange(unit.shape[1]) % 2 == 0)",
    ),
    "all dimensions but the last": (
        "dimensions",
        "same for 1 of them: 11",
        UNIT,
        f"{UNIT}\n        unit = torch.cat([unit[:, :-1], 0 * unit[:, -1:]], dim=1)",
    ),
    "embeddings set to unit length in place": (
        "inputs",
        "row 0 began with",
        UNIT,
        f"with torch.no_grad(): embeddings.copy_(unit_length(embeddings))\n        {UNIT}",
    ),
    "an in-place step that autograd refuses": (
        "call",
        r"embeddings = embeddings \* 2",
        UNIT,
        f"embeddings *= 2\n        {UNIT}",
    ),
    "proxies set to unit length by each call": (
        "repeats",
        r"forward and backward ran once\. .*'proxies' of its state",
        EXTRA,
        "extra = 0; self.proxies.data = unit_length(self.proxies.data)",
    ),
    "a count in a closed iterator": (
        "repeats",
        r"at call 12\d",
        WEIGHT,
        f"{WEIGHT}; self.calls = iter(range(10**9))",
        EXTRA,
        "extra = pull * (next(self.calls) > 120)",
    ),
    "a count in a global name that acts very late": (
        "repeats",
        r"CALLS changes with the calls; it was set to 100,000",
        "class Made(",
        "CALLS = 0\n\n\nclass Made(",
        EXTRA,
        "global CALLS; CALLS += 1; extra = pull * (CALLS > 50_000)",
    ),
    "a generator of its own": (
        "repeats",
        "at call 2",
        WEIGHT,
        f"{WEIGHT}; self.random = np.random.default_rng(0)",
        EXTRA,
        "extra = pull * self.random.random()",
    ),
    "labels by way of a list": (
        "host",
        r"Tensor\.tolist\(\)",
        MASKS,
        "pair_masks(torch.tensor(labels.tolist()))",
    ),
    "labels by way of a loop": (
        "host",
        "20 numbers were read one by one, and a tensor is made",
        MASKS,
        "pair_masks(torch.tensor([int(label) for label in labels]))",
    ),
    "labels by way of the CPU": (
        "host",
        r"Tensor\.cpu\(\)",
        MASKS,
        "pair_masks(labels.cpu().to(labels.device))",
    ),
    "a draw of numpy": (
        "random",
        "numpy's global generator was changed",
        EXTRA,
        "extra = pull * np.random.rand()",
    ),
    "a draw of Python": (
        "random",
        "Python's module random was changed",
        "import numpy as np",
        "import random\n\nimport numpy as np",
        EXTRA,
        "extra = pull * random.random()",
    ),
    "a draw without a seed": (
        "random",
        "a generator without a seed",
        EXTRA,
        "extra = pull * np.random.default_rng().random()",
    ),
    "the clock, in seconds": (
        "random",
        "the clock of the module time was changed",
        "import numpy as np",
        "import time\n\nimport numpy as np",
        EXTRA,
        "extra = pull * (int(time.time()) % 2)",
    ),
    "a seed that is set": (
        "random",
        "the loss sets the seed",
        EXTRA,
        "extra = 0; torch.manual_seed(0)",
    ),
}
