"""A real Triton with a network that onnxruntime runs in its Python back end: triton.py NET.onnx HTTP_PORT GRPC_PORT METRICS_PORT."""
import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

file, http, grpc, metrics = sys.argv[1], *map(int, sys.argv[2:5])
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
input_name = session.get_inputs()[0].name
free = (-1, -1, -1, -1)


@batch
def network(image):
    return {"scores": session.run(None, {input_name: image})[0]}


@batch
def echo(image):
    return {"scores": image}


here = "127.0.0.1"
config = TritonConfig(http_port=http, grpc_port=grpc, metrics_port=metrics, http_address=here, grpc_address=here)
with Triton(config=config) as triton:
    for name, function in (("network", network), ("echo", echo)):
        triton.bind(
            model_name=name,
            infer_func=function,
            inputs=[Tensor(name="image", dtype=np.float32, shape=free)],
            outputs=[Tensor(name="scores", dtype=np.float32, shape=free)],
            config=ModelConfig(max_batch_size=1, batcher=DynamicBatcher()),
        )
    triton.serve()
