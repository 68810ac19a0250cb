"""The runtimes that a trained model can go to: how to write the file that each reads, and how to run it.

Packages are imported where they are needed: the process that runs a model has no other runtime in its memory.
"""
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

if TYPE_CHECKING:
    import torch
    from onnx import GraphProto
    from torch import nn

OPSET = 20  # the first with GELU as one operator
INPUT = 'input0'  # as timm's onnx_export.py names it
CALIBRATION_IMAGES = 500
Run = Callable[[np.ndarray], np.ndarray]  # images `(B, C, H, W)` in float32 -> logits `(B, classes)`


class Runtime(NamedTuple):
    """A way to run a model that has a file of its own."""
    title: str
    packages: Tuple[str, ...]  # to import, beside torch and timm
    suffix: str
    write: Callable[['nn.Module', Path, Tuple[int, ...], Optional[np.ndarray]], None]
    load: Callable[[Path, int], Run]
    calibrated: bool = False  # whether it is written with the help of images
    exportable: bool = True  # whether models of `timm.create_model(..., exportable=True)` suit it better

    @property
    def missing(self) -> Tuple[str, ...]:
        """Packages that are not installed."""
        return tuple(package for package in self.packages if importlib.util.find_spec(package) is None)


# PyTorch


def _example(input_size: Tuple[int, ...]) -> Tuple['torch.Tensor']:
    import torch
    return torch.randn(2, *input_size),  # of one image, an export would hold for batches of one only


def write_aoti(model: 'nn.Module', file: Path, input_size: Tuple[int, ...], images: Optional[np.ndarray]) -> None:
    import torch
    from timm.utils import reparameterize_model
    shapes = {0: torch.export.Dim('batch')},
    program = torch.export.export(reparameterize_model(model.eval()), _example(input_size), dynamic_shapes=shapes)
    torch._inductor.aoti_compile_and_package(
        program, package_path=str(file),
        inductor_configs={'cpp.dynamic_threads': True})  # as many as the process has that runs it


def load_aoti(file: Path, threads: int) -> Run:
    import torch
    torch.set_num_threads(threads)
    model = torch._inductor.aoti_load_package(str(file))

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(np.ascontiguousarray(images))).numpy()  # it does not look at strides

    return run


# ONNX


def write_onnx(
        model: 'nn.Module', file: Path, input_size: Tuple[int, ...], images: Optional[np.ndarray],
        dynamic_size: bool = False) -> None:
    """What timm's `onnx_export.py --reparam --dynamo --opset 20` writes, without the exporter's notes on every node."""
    import onnx
    import onnx_ir.passes.common
    from timm.utils import reparameterize_model
    from timm.utils.onnx import onnx_export
    onnx_export(
        reparameterize_model(model.eval()), str(file), opset=OPSET, use_dynamo=True, batch_size=2,
        input_size=input_size, dynamic_size=dynamic_size)
    graph = onnx_ir.load(file)
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(graph)
    proto = onnx_ir.to_proto(graph)
    del proto.graph.value_info[:]  # shapes, which runtimes infer
    onnx.save(proto, file)


def write_onnx_fp16(model: 'nn.Module', file: Path, input_size: Tuple[int, ...], images: Optional[np.ndarray]) -> None:
    import onnx
    from onnxconverter_common.float16 import convert_float_to_float16
    write_onnx(model, file, input_size, None)
    onnx.save(convert_float_to_float16(onnx.load(file), keep_io_types=True), file)


def write_onnx_int8_dynamic(
        model: 'nn.Module', file: Path, input_size: Tuple[int, ...], images: Optional[np.ndarray]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    write_onnx(model, file, input_size, None)
    quantize_dynamic(file, file, weight_type=QuantType.QUInt8)  # onnxruntime has no other convolution of this kind


def write_onnx_int8(model: 'nn.Module', file: Path, input_size: Tuple[int, ...], images: Optional[np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        float_file = Path(folder) / 'float.onnx'
        write_onnx(model, float_file, input_size, None)
        quantize_onnx(float_file, file, images)


def quantize_onnx(float_file: Path, file: Path, images: Optional[np.ndarray]) -> None:
    """Static int8 quantisation of convolutions, per channel, in the QDQ format.

    In float stay the stem, the classifier, and each convolution with less than 0.3 % of the weights: the depth-wise
    ones, and the second of a WaveMix block's MLP or the first of a WaveMix-Lite block. They save little and lose much.
    Everything that is no convolution is float anyway. The ranges of the activations leave out one value in 10,000.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = np.array_split(images, max(1, len(images) // 50))

    class Batches(CalibrationDataReader):
        def __len__(self) -> int:
            return len(batches)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.batches: Iterator[np.ndarray] = iter(batches[start_index:end_index])

        def get_next(self) -> Optional[Dict[str, np.ndarray]]:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    quant_pre_process(float_file, file, skip_symbolic_shape=True)
    graph = onnx.load(file).graph
    convs = [node for node in graph.node if node.op_type == 'Conv']
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    small = [node for node in convs if weights[node.input[1]] < 0.003 * sum(weights.values())]
    quantize_static(
        file, file, Batches(), per_channel=True, op_types_to_quantize=['Conv', 'ConvTranspose'],
        nodes_to_exclude=[node.name for node in [*convs[:2], *small]],
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.Percentile,
        extra_options={
            'CalibPercentile': 99.99, 'QuantizeBias': False,
            'OpTypesToExcludeOutputQuantization': ['ConvTranspose'],  # which are computed in float anyway
            'CalibStridedMinMax': 1,  # batch by batch: the activations of all of WaveMix-Lite-256/7 take 16 GB
        })
    model = onnx.load(file)
    _compact(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _compact(graph: 'GraphProto') -> None:
    """Leave out what no runtime needs, a fifth of a small model: long names, shapes, and the weights' zero points."""
    from onnx import TensorProto
    zeros = {  # the weights are symmetric
        tensor.name for tensor in graph.initializer
        if tensor.name.endswith('_zero_point') and tensor.data_type == TensorProto.INT8}
    tensors = [tensor for tensor in graph.initializer if tensor.name not in zeros]
    names = {value.name: value.name for value in [*graph.input, *graph.output]}

    def short(name: str) -> str:
        return name and names.setdefault(name, str(len(names)))

    for node in graph.node:
        node.ClearField('name')
        if node.op_type == 'DequantizeLinear' and node.input[-1] in zeros:
            node.input.pop()
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    for tensor in tensors:
        tensor.name = short(tensor.name)
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(tensors)


def load_onnx(file: Path, threads: int) -> Run:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


# OpenVINO


def _openvino_model(model: 'nn.Module', input_size: Tuple[int, ...]):
    import openvino
    from timm.utils import reparameterize_model
    return openvino.convert_model(
        reparameterize_model(model.eval()), example_input=_example(input_size), input=[-1, *input_size])


def write_openvino(model: 'nn.Module', file: Path, input_size: Tuple[int, ...], images: Optional[np.ndarray]) -> None:
    import openvino
    openvino.save_model(_openvino_model(model, input_size), file, compress_to_fp16=False)


def write_openvino_int8(
        model: 'nn.Module', file: Path, input_size: Tuple[int, ...], images: Optional[np.ndarray]) -> None:
    import nncf
    import openvino
    quantized = nncf.quantize(
        _openvino_model(model, input_size), nncf.Dataset(list(images[:, None])), subset_size=len(images))
    openvino.save_model(quantized, file, compress_to_fp16=False)


def load_openvino(file: Path, threads: int) -> Run:
    import openvino
    # on a CPU that knows bfloat16, OpenVINO would compute in it
    settings = {
        'INFERENCE_NUM_THREADS': threads, 'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
    request = openvino.Core().compile_model(file, 'CPU', settings).create_infer_request()
    return lambda images: request.infer([images])[0]


# ExecuTorch


def write_executorch(
        model: 'nn.Module', file: Path, input_size: Tuple[int, ...], images: Optional[np.ndarray]) -> None:
    """For one image at a time, as on a phone."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from timm.utils import reparameterize_model

    def pad(x: 'torch.Tensor', padding: List[int], mode: str = 'constant', value: float = 0.) -> 'torch.Tensor':
        # ExecuTorch's pad takes no negative numbers, which it says when it runs: these become slices
        for i, (before, after) in enumerate(zip(padding[::2], padding[1::2])):
            if before < 0 or after < 0:
                dim = x.dim() - 1 - i
                x = x.narrow(dim, max(0, -before), x.shape[dim] + min(0, before) + min(0, after))
        return torch.constant_pad_nd(x, [max(0, n) for n in padding], value)

    program = torch.export.export(reparameterize_model(model.eval()), (torch.randn(1, *input_size),))
    program = program.run_decompositions({torch.ops.aten.pad.default: pad})
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    file.write_bytes(edge.to_executorch().buffer)


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


RUNTIMES = {
    'aoti': Runtime('AOTInductor package', (), '.pt2', write_aoti, load_aoti, exportable=False),
    'onnx': Runtime('onnxruntime', ('onnx', 'onnxscript', 'onnxruntime'), '.onnx', write_onnx, load_onnx),
    'onnx-fp16': Runtime(
        'onnxruntime, fp16', ('onnx', 'onnxscript', 'onnxruntime', 'onnxconverter_common'), '.onnx',
        write_onnx_fp16, load_onnx),
    'onnx-int8-dynamic': Runtime(
        'onnxruntime, int8 dynamic', ('onnx', 'onnxscript', 'onnxruntime'), '.onnx', write_onnx_int8_dynamic,
        load_onnx, exportable=False),  # onnxruntime would leave transposed convolutions in float
    'onnx-int8': Runtime(
        'onnxruntime, int8 static', ('onnx', 'onnxscript', 'onnxruntime'), '.onnx', write_onnx_int8, load_onnx,
        calibrated=True),
    'openvino': Runtime(
        'OpenVINO', ('openvino',), '.xml', write_openvino, load_openvino, exportable=False),
    'openvino-int8': Runtime(
        'OpenVINO, int8', ('openvino', 'nncf'), '.xml', write_openvino_int8, load_openvino, calibrated=True,
        exportable=False),
    'executorch': Runtime('ExecuTorch, XNNPACK', ('executorch',), '.pte', write_executorch, load_executorch),
}


# Files


def calibration_images(folder: Path, model: 'nn.Module', count: int = CALIBRATION_IMAGES) -> np.ndarray:
    """Images from all over a folder of classes, preprocessed as for the model's evaluation: `(count, C, H, W)`.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: The folder has no images.
        ValueError: An image is smaller than those that the model takes: enlarged, it would be unlike them.
    """
    from timm.data import ImageDataset, create_transform, resolve_model_data_config

    from .evaluate import image_mode
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}': name one with training images.")
    config = resolve_model_data_config(model)
    dataset = ImageDataset(str(folder), input_img_mode=image_mode(model))
    transform = create_transform(**config)
    height, width = config['input_size'][1:]
    images = []
    for i in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        image, _ = dataset[i]
        if image.width < width or image.height < height:
            raise ValueError(
                f"'{dataset.filename(i, absolute=True)}' has {image.width}x{image.height} pixels, the model takes "
                f'{width}x{height}: name the images that it was trained on, enlarged if they were enlarged for it.')
        images.append(transform(image).numpy())
    return np.stack(images)


def files_of(file: Path) -> Tuple[Path, ...]:
    """The file of a runtime, and what lies beside it: OpenVINO has the weights in a file of their own."""
    return (file.with_suffix('.bin'), file) if file.suffix == '.xml' else (file,)


def check_output(runtime: Runtime, file: Path) -> None:
    """
    Raises:
        FileExistsError: The file is there.
        ValueError: The runtime's files have another suffix.
    """
    if file.suffix != runtime.suffix:
        raise ValueError(f"'{file}' is no name for this runtime: let it end in {runtime.suffix}.")
    for path in files_of(file):
        if path.exists():
            raise FileExistsError(f"'{path}' is already there: remove it, or name another file.")


def write(runtime: Runtime, model: 'nn.Module', file: Path, images: Optional[np.ndarray] = None) -> None:
    """Write the file of a runtime, all of it or nothing.

    Args:
        runtime: One of `RUNTIMES`.
        model: A model of timm, with its `pretrained_cfg`.
        file: What to write. It must not exist.
        images: From `calibration_images`, for the runtimes that are `calibrated`.

    Raises:
        FileExistsError, ValueError: as `check_output`.
        ValueError: The images are of another size than the model takes.
        RuntimeError: The runtime's exporter fails.
    """
    from timm.data import resolve_model_data_config
    input_size = tuple(resolve_model_data_config(model)['input_size'])
    check_output(runtime, file)
    if images is not None and images.shape[1:] != input_size:
        raise ValueError(
            f'the calibration images are {"x".join(map(str, images.shape[1:]))}, the model takes '
            f'{"x".join(map(str, input_size))}: preprocess them as for the model.')
    with tempfile.TemporaryDirectory(dir=file.parent, prefix='.writing-') as folder:
        whole = Path(folder) / file.name
        try:
            runtime.write(model, whole, input_size, images)
        except Exception as error:  # the exporters raise what they like
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RuntimeError(f'the exporter for {runtime.title} failed: {reason}') from error
        for source, target in zip(files_of(whole), files_of(file)):
            os.replace(source, target)
