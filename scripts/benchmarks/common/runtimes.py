"""How to run the file that timm_wavemix.export writes for a runtime.

Packages are imported where they are needed, and this package is not: the process that runs a model has no other runtime
in its memory.
"""
from pathlib import Path
from typing import Callable

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]  # images `(B, C, H, W)` in float32 -> logits `(B, classes)`


def load_aoti(file: Path, threads: int) -> Run:
    import torch
    torch.set_num_threads(threads)
    model = torch._inductor.aoti_load_package(str(file))

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(np.ascontiguousarray(images))).numpy()  # it does not look at strides

    return run


def load_onnx(file: Path, threads: int) -> Run:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def load_openvino(file: Path, threads: int) -> Run:
    import openvino
    # on a CPU that knows bfloat16, OpenVINO would compute in it
    settings = {
        'INFERENCE_NUM_THREADS': threads, 'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
    request = openvino.Core().compile_model(file, 'CPU', settings).create_infer_request()
    return lambda images: request.infer([images])[0]


def load_executorch(file: Path, threads: int) -> Run:
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool  # unsafe while a model runs
    from executorch.runtime import Runtime as ExecuTorch
    _unsafe_reset_threadpool(threads)
    method = ExecuTorch.get().load_program(file).load_method('forward')

    def run(images: np.ndarray) -> np.ndarray:
        images = np.ascontiguousarray(images)  # ExecuTorch does not look at strides
        # the next call overwrites what this one returns
        return np.concatenate([method.execute([torch.from_numpy(image[None])])[0].numpy().copy() for image in images])

    return run


def load_tflite(file: Path, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(str(file), num_threads=threads)
    run_one = interpreter.get_signature_runner()
    return lambda images: np.concatenate([run_one(args_0=image[None])['output_0'] for image in images])


LOADERS = {  # of the keys of timm_wavemix.export.RUNTIMES
    'onnx': load_onnx,
    'onnx-fp16': load_onnx,
    'onnx-int8': load_onnx,
    'onnx-int8-dynamic': load_onnx,
    'openvino': load_openvino,
    'openvino-int8': load_openvino,
    'executorch': load_executorch,
    'tflite': load_tflite,
    'aoti': load_aoti,
}
