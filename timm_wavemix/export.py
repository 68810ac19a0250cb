"""The files that runtimes read: ONNX, OpenVINO, ExecuTorch, LiteRT (TFLite), AOTInductor packages.

Packages of runtimes are imported where they are needed: nobody has all of them.
"""
import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Literal, NamedTuple, Optional, Tuple

import numpy as np
import torch
from PIL import Image
from timm.data import ImageDataset, create_transform, resolve_input_data_config
from timm.layers import set_exportable, set_layer_config
from timm.utils import reparameterize_model
from torch import nn

from .checkpoints import IMAGE_MODES, config_of, is_name, load_model

if TYPE_CHECKING:
    from onnx import GraphProto

OPSET = 20  # the first with GELU as one operator
INPUT = 'input0'  # as timm's onnx_export.py names it
CALIBRATION_IMAGES = 500
Writer = Callable[..., None]  # of the deployed model, the output, and images `(B, C, H, W)` in float32


class Runtime(NamedTuple):
    """A way to run a model that has a file of its own."""
    title: str
    packages: Tuple[str, ...]  # to import, beside torch and timm
    suffix: str  # of the file, empty for a folder
    write: Writer
    calibration: Literal['never', 'optional', 'required'] = 'never'  # with training images
    exportable: bool = True  # whether models of `timm.create_model(..., exportable=True)` suit it better
    options: Tuple[str, ...] = ()  # further arguments of `write`

    @property
    def missing(self) -> Tuple[str, ...]:
        """Packages that are not installed."""
        return tuple(package for package in self.packages if importlib.util.find_spec(package) is None)


# PyTorch


def _example(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images[:2])  # of one image, an export would hold for batches of one only


def write_aoti(model: nn.Module, file: Path, images: np.ndarray) -> None:
    program = torch.export.export(model, (_example(images),), dynamic_shapes=({0: torch.export.Dim('batch')},))
    torch._inductor.aoti_compile_and_package(
        program, package_path=str(file),
        inductor_configs={'cpp.dynamic_threads': True})  # as many as the process has that runs it


# ONNX


def write_onnx(model: nn.Module, file: Path, images: np.ndarray, dynamic_size: bool = False) -> None:
    """What timm's `onnx_export.py --reparam --dynamo --opset 20` writes, without the exporter's notes on every node."""
    import onnx
    import onnx_ir.passes.common
    from timm.utils.onnx import onnx_export
    onnx_export(
        model, str(file), opset=OPSET, use_dynamo=True, batch_size=2, input_size=images.shape[1:],
        dynamic_size=dynamic_size)
    graph = onnx_ir.load(file)
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(graph)
    proto = onnx_ir.to_proto(graph)
    del proto.graph.value_info[:]  # shapes, which runtimes infer
    onnx.save(proto, file)


def write_onnx_fp16(model: nn.Module, file: Path, images: np.ndarray) -> None:
    import onnx
    from onnxconverter_common.float16 import convert_float_to_float16
    write_onnx(model, file, images)
    onnx.save(convert_float_to_float16(onnx.load(file), keep_io_types=True), file)


def write_onnx_int8_dynamic(model: nn.Module, file: Path, images: np.ndarray) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    write_onnx(model, file, images)
    quantize_dynamic(file, file, weight_type=QuantType.QUInt8)  # onnxruntime has no other convolution of this kind


def write_onnx_int8(model: nn.Module, file: Path, images: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        float_file = Path(folder) / 'float.onnx'
        write_onnx(model, float_file, images)
        quantize_onnx(float_file, file, images)


def quantize_onnx(float_file: Path, file: Path, images: np.ndarray) -> None:
    """Static int8 quantisation of the convolutions and the classifier, per channel, in the QDQ format.

    The weights have 7 of the 8 bits. With 8, sums saturate on x86 CPUs without VNNI: the accuracy of WaveMix-Lite-8/5
    on the validation images fell from 92 % to 82 % there. The ranges of the activations leave out one value in 10,000.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = np.array_split(images, max(1, len(images) // 50))

    class Batches(CalibrationDataReader):  # type: ignore[misc]  # which has no types
        def __len__(self) -> int:
            return len(batches)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.batches: Iterator[np.ndarray] = iter(batches[start_index:end_index])

        def get_next(self) -> Optional[Dict[str, np.ndarray]]:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    quant_pre_process(float_file, file, skip_symbolic_shape=True)
    quantize_static(
        file, file, Batches(), per_channel=True, reduce_range=True,
        op_types_to_quantize=['Conv', 'ConvTranspose', 'Gemm'],
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


# OpenVINO


def _openvino_model(model: nn.Module, images: np.ndarray) -> Any:
    import openvino
    return openvino.convert_model(model, example_input=_example(images), input=[-1, *images.shape[1:]])


def write_openvino(model: nn.Module, file: Path, images: np.ndarray) -> None:
    import openvino
    openvino.save_model(_openvino_model(model, images), file, compress_to_fp16=False)


def write_openvino_int8(model: nn.Module, file: Path, images: np.ndarray) -> None:
    import nncf
    import openvino
    quantized = nncf.quantize(
        _openvino_model(model, images), nncf.Dataset(list(images[:, None])), subset_size=len(images),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE))  # 7 of the 8 bits, as in `quantize_onnx`
    openvino.save_model(quantized, file, compress_to_fp16=False)


# ExecuTorch


def write_executorch(model: nn.Module, file: Path, images: np.ndarray) -> None:
    """For one image at a time, as on a phone."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    program = torch.export.export(model, (torch.from_numpy(images[:1]),))
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    file.write_bytes(edge.to_executorch().buffer)


# LiteRT, which was TensorFlow Lite


def write_tflite(model: nn.Module, file: Path, images: np.ndarray) -> None:
    """For one image at a time, as on a phone."""
    import litert_torch
    litert_torch.convert(model, (torch.from_numpy(images[:1]),)).export(str(file))


# A page for browsers


def write_web(
        model: nn.Module, folder: Path, images: Optional[np.ndarray], examples: Optional[Path] = None,
        metadata: Optional[Path] = None, onnxruntime_web: Optional[Path] = None) -> None:
    """A folder with a static page, the float model, and the int8 model if there are calibration images."""
    from .web import copy_runtime, write_page
    folder.mkdir()
    copy_runtime(folder, onnxruntime_web)
    size = resolve_input_data_config(model)['input_size']
    write_onnx(model, folder / 'model.onnx', np.zeros((2, *size), np.float32))
    if images is not None:
        quantize_onnx(folder / 'model.onnx', folder / 'model-int8.onnx', images)
    write_page(model, folder, examples, metadata)


ONNX = ('onnx', 'onnxscript', 'onnxruntime')
RUNTIMES = {
    'aoti': Runtime('AOTInductor package', (), '.pt2', write_aoti, exportable=False),
    'onnx': Runtime('onnxruntime', ONNX, '.onnx', write_onnx, options=('dynamic_size',)),
    'onnx-fp16': Runtime('onnxruntime, fp16', (*ONNX, 'onnxconverter_common'), '.onnx', write_onnx_fp16),
    'onnx-int8-dynamic': Runtime(
        'onnxruntime, int8 dynamic', ONNX, '.onnx', write_onnx_int8_dynamic,
        exportable=False),  # onnxruntime would leave transposed convolutions in float
    'onnx-int8': Runtime('onnxruntime, int8 static', ONNX, '.onnx', write_onnx_int8, calibration='required'),
    'openvino': Runtime('OpenVINO', ('openvino',), '.xml', write_openvino, exportable=False),
    'openvino-int8': Runtime(
        'OpenVINO, int8', ('openvino', 'nncf'), '.xml', write_openvino_int8, calibration='required', exportable=False),
    'executorch': Runtime('ExecuTorch, XNNPACK', ('executorch',), '.pte', write_executorch),
    'tflite': Runtime('LiteRT (TFLite)', ('litert_torch',), '.tflite', write_tflite),
    'web': Runtime(
        'a web page', ONNX, '', write_web, calibration='optional', options=('examples', 'metadata', 'onnxruntime_web')),
}


# Files


def calibration_images(folder: Path, model: nn.Module, count: int = CALIBRATION_IMAGES) -> np.ndarray:
    """Images from all over a folder of classes, preprocessed as for the model's evaluation: `(count, C, H, W)`.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: The folder has no images.
        ValueError: A file is not an image, or is smaller than the model's images: enlarged, it would be unlike them.
            Images have no such number of channels.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}': name one with training images.")
    config = resolve_input_data_config(model)
    channels, height, width = config['input_size']
    if channels not in IMAGE_MODES:
        raise ValueError(f'the model takes {channels} channels, which no image file has: export it without images.')
    transform = create_transform(**config)
    dataset = ImageDataset(str(folder))
    images = []
    for i in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        name = dataset.filename(i, absolute=True)
        try:  # not dataset[i], which replaces what it cannot read by a neighbour
            image = Image.open(name).convert(IMAGE_MODES[channels])
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"'{name}' cannot be read as an image: {error}") from error
        if image.width < width or image.height < height:
            raise ValueError(
                f"'{name}' has {image.width}x{image.height} pixels, the model takes {width}x{height}: name the images "
                'that it was trained on, enlarged if they were enlarged for it.')
        images.append(transform(image).numpy())
    return np.stack(images)


def files_of(output: Path) -> Tuple[Path, ...]:
    """What a runtime reads: a file or a folder, and OpenVINO's weights, which have a file of their own."""
    return (output.with_suffix('.bin'), output) if output.suffix == '.xml' else (output,)


def check_output(runtime: Runtime, output: Path) -> None:
    """
    Raises:
        FileExistsError: The output is there.
        FileNotFoundError: The folder that it would be in is not.
        ValueError: The runtime's files have another suffix.
    """
    if runtime.suffix and output.suffix != runtime.suffix:
        raise ValueError(f"the file for {runtime.title} must end in {runtime.suffix}, '{output}' does not.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder '{output.parent}': make it, or name another.")
    for path in files_of(output):
        if path.exists():
            raise FileExistsError(f"'{path}' is already there: remove it, or name another file.")


def write(
        runtime: Runtime, model: nn.Module, output: Path, images: Optional[np.ndarray] = None, **options: Any) -> None:
    """Write what a runtime reads, all of it or nothing.

    Args:
        runtime: One of `RUNTIMES`.
        model: A model of timm, with its `pretrained_cfg`.
        output: File or folder to write. It must not exist.
        images: From `calibration_images`, for runtimes with calibration.
        options: Further arguments of the runtime's writer.

    Raises:
        OSError, ValueError: As `check_output`.
        ValueError: The images are of another size than the model takes, or are there or lacking without reason. The
            runtime has no such option.
        RuntimeError: The runtime's exporter fails.
    """
    check_output(runtime, output)
    size = tuple(resolve_input_data_config(model)['input_size'])
    if runtime.calibration == ('required' if images is None else 'never'):
        raise ValueError(f'{runtime.title} {"needs" if images is None else "takes no"} calibration images.')
    if images is None and runtime.calibration == 'never':
        images = np.zeros((2, *size), np.float32)
    elif images is not None and images.shape[1:] != size:
        raise ValueError(
            f'the calibration images are {"x".join(map(str, images.shape[1:]))}, the model takes '
            f'{"x".join(map(str, size))}: preprocess them as for the model.')
    for option in options.keys() - set(runtime.options):
        raise ValueError(f'{runtime.title} has no option --{option.replace("_", "-")}: leave it out.')
    with tempfile.TemporaryDirectory(dir=output.parent, prefix='.writing-') as folder:
        whole = Path(folder) / output.name
        try:
            with set_exportable(True):  # the form with the fewest weights
                deployed = reparameterize_model(model.eval())
            runtime.write(deployed, whole, images, **options)
        except Exception as error:  # the exporters raise what they like
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RuntimeError(f'the exporter for {runtime.title} failed: {reason}') from error
        for source, target in zip(files_of(whole), files_of(output)):
            os.replace(source, target)


def export(
        model_name: str, runtime: str, output: Path, calibration: Optional[Path] = None, use_ema: bool = False,
        **options: Any) -> Tuple[Path, ...]:
    """Write a trained model as what a runtime reads, all of it or nothing.

    Args:
        model_name: As `checkpoints.load_model` takes it.
        runtime: A key of `RUNTIMES`.
        output: File or folder to write. It must not exist.
        calibration: Training images in folders of classes, for runtimes with calibration.
        use_ema: Take the EMA weights of the checkpoint.
        options: Further arguments of the runtime's writer, such as `dynamic_size=True` for images of any size.

    Returns:
        What was written: `files_of(output)`.

    Raises:
        ImportError: A package is missing.
        OSError, RuntimeError, ValueError: The model cannot be loaded, or as `calibration_images` and `write`.
    """
    kind = RUNTIMES[runtime]
    if kind.missing:
        raise ImportError(f'{runtime} needs other packages: install them with `pip install {" ".join(kind.missing)}`.')
    if calibration is None and kind.calibration == 'required':
        raise ValueError(f'{runtime} needs calibration images: pass a folder of training images with --calibration.')
    if calibration is not None and kind.calibration == 'never':
        raise ValueError(f'{runtime} takes no calibration images: leave --calibration out.')
    check_output(kind, output)
    with set_layer_config(exportable=kind.exportable):
        model = load_model(model_name, use_ema)
    if 'metadata' in kind.options and is_name(model_name):
        from .hub.metadata import hub_configs
        published = hub_configs() / '{architecture}.{tag}.yaml'.format(**config_of(model))
        options.setdefault('metadata', published if published.exists() else None)
    write(kind, model, output, calibration_images(calibration, model) if calibration else None, **options)
    return files_of(output)


def main(argv: Optional[List[str]] = None, prog: Optional[str] = None) -> None:
    runtimes = ', '.join(f'{key} ({kind.suffix or "a folder"})' for key, kind in RUNTIMES.items())
    parser = argparse.ArgumentParser(
        prog=prog, usage='%(prog)s MODEL RUNTIME FILE [options]',
        description='Write the deployed form of a trained model (timm.utils.reparameterize_model) for a runtime.')
    parser.add_argument(
        'model', metavar='MODEL',
        help="name of a model with weights, hf-hub:ORG/NAME, checkpoint of timm's train.py or folder of save_for_hf")
    parser.add_argument('runtime', metavar='RUNTIME', choices=RUNTIMES, help=runtimes)
    parser.add_argument('output', metavar='FILE', type=Path, help='what to write')
    parser.add_argument('--calibration', metavar='DIR', type=Path, help='training images in folders of classes')
    parser.add_argument('--use-ema', action='store_true', help='take the EMA weights of the checkpoint')
    parser.add_argument(
        '--dynamic-size', action='store_true', help="for images of any size, not only of the pretrained_cfg's (onnx)")
    web = parser.add_argument_group('web page')
    web.add_argument('--examples', metavar='DIR', type=Path, help='images that the page offers')
    web.add_argument(
        '--metadata', metavar='FILE', type=Path, help='YAML file with label_names and limits, as for push')
    web.add_argument(
        '--onnxruntime-web', metavar='DIR', type=Path, help='folder of that npm package (default: npm gets it)')
    args = parser.parse_args(argv)
    options = {name: value for kind in RUNTIMES.values() for name in kind.options if (value := getattr(args, name))}
    try:
        written = export(args.model, args.runtime, args.output, args.calibration, args.use_ema, **options)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")
    files = [file for path in written for file in ([path] if path.is_file() else path.rglob('*')) if file.is_file()]
    print(f'{", ".join(map(str, written))}: {sum(file.stat().st_size for file in files):,} bytes')
