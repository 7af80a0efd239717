"""Runs the network of an ONNX file in PyTorch, for bench/engine.ts: MODEL INPUT OUTPUT DIMS THREADS.

INPUT has float32 numbers. For each line on stdin the network runs once, and a line with the milliseconds is written;
the scores of the first run go to OUTPUT. Knows the operators of bench/engine-networks.ts, and no others.
"""

import sys
import time

import numpy
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional


def both_ends_equal(pads: list[int]) -> list[int]:
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        raise SystemExit(f"pads {pads} differ between the ends of an axis")
    return pads[:half]


def compute(node: onnx.NodeProto, values: list[torch.Tensor]) -> torch.Tensor:
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    strides = list(given.get("strides", [1, 1, 1]))
    pads = both_ends_equal(list(given.get("pads", [0] * 6)))
    if node.op_type == "Conv":
        return functional.conv3d(*values, stride=strides, padding=pads)
    if node.op_type == "ConvTranspose":
        more = list(given.get("output_padding", [0, 0, 0]))
        return functional.conv_transpose3d(*values, stride=strides, padding=pads, output_padding=more)
    if node.op_type == "InstanceNormalization":
        x, scale, shift = values
        return functional.instance_norm(x, weight=scale, bias=shift, eps=given.get("epsilon", 1e-5))
    if node.op_type == "PRelu":
        return functional.prelu(values[0], values[1].flatten())
    if node.op_type == "LeakyRelu":
        return functional.leaky_relu(values[0], given.get("alpha", 0.01))
    if node.op_type == "MaxPool":
        return functional.max_pool3d(values[0], list(given["kernel_shape"]), strides, pads)
    if node.op_type == "Concat":
        return torch.cat(values, given["axis"])
    if node.op_type == "Add":
        return values[0] + values[1]
    if node.op_type == "Identity":
        return values[0]
    raise SystemExit(f"the operator {node.op_type} is not known")


def main(model: str, source: str, target: str, dims: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    graph = onnx.load(model).graph
    weights = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in graph.initializer}
    image = torch.from_numpy(numpy.fromfile(source, dtype=numpy.float32).reshape([int(d) for d in dims.split(",")]))
    last_use = {name: i for i, node in enumerate(graph.node) for name in node.input}

    def run() -> torch.Tensor:
        values = {graph.input[0].name: image}
        for i, node in enumerate(graph.node):
            inputs = [weights[name] if name in weights else values[name] for name in node.input]
            values[node.output[0]] = compute(node, inputs)
            for name in node.input:
                if last_use[name] == i:
                    values.pop(name, None)
        return values[graph.output[0].name]

    with torch.inference_mode():
        run().numpy().tofile(target)
        print(torch.__version__, flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            run()
            print((time.perf_counter() - start) * 1000, flush=True)


main(*sys.argv[1:])
