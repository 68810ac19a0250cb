"""Measure every shipped model in every runtime that it can go to: file, latency, speed, memory, accuracy.

Each model and runtime has a process of its own. The processes of a model take turns, in alternating rounds, on random
images of 28x28; "1f138ab" is the eager mode of another checkout (--baseline). Latency is the time from an array of one
image to an array of logits, in a process of one thread and in one of a thread for each core. Its 95th percentile and
how many times as fast as eager it is are those of the quicker one, of eager too. Images per second and memory are those
with all threads. Memory is the most that the process has had when it has run batches of 1 and of 64, with Python and
the runtime in it.

Top-1 is that of the same shipped weights on all test images, preprocessed alike, whatever the runtime; nothing was
selected by it. The recipe of the static int8 files was chosen on validation images, their ranges come from 500 training
images. Agreement is the share of test images that get the same class as from onnxruntime in float32. The other rows in
float compute the same function, in fp16 but for rounding: for these it is that of every tenth image, they have no top-1
of their own, and the picture has them at onnxruntime's.

ResNet-18 and MobileNetV3 have random weights here, so no accuracy. Their stems have strides: they look at maps of 7x7
and less, where WaveMix keeps 28x28.

What has been measured is kept in the JSON file and not measured again, on this machine with this software. A runtime
that is not installed is left out.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.layers import set_layer_config
from torch import nn
from tqdm import tqdm

import timm_wavemix  # noqa: F401  registers the models
from lib.evaluate import image_mode, load_split
from lib.report import (
    docstring_body,
    hardware_name,
    markdown_table,
    marker_styles,
    output_file,
    positive_int,
    report_header,
    require_matplotlib,
    three_digits,
    write_text_whole,
)
from lib.runtimes import RUNTIMES, calibration_images, files_of, write
from lib.worker import PYTORCH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHIPPED = [name.split('.')[0] for name in timm.list_models('*.fashion_mnist', module='wavemix', pretrained=True)]
PEERS = ['resnet18', 'mobilenetv3_small_100']  # without weights
BASELINE = '1f138ab'
REFERENCE = 'onnx'
SAME = {*PYTORCH, 'aoti', 'onnx-fp16', 'openvino', 'executorch'}  # the rows in float, as the reference
TITLES = {BASELINE: f'PyTorch, eager, at {BASELINE}', **PYTORCH, **{name: r.title for name, r in RUNTIMES.items()}}
BATCH = 64
MIN_SECONDS = 0.3  # of the calls of a round
Results = Dict[str, Dict[str, Dict[str, Any]]]  # by model and runtime


# Processes

class Worker:
    """A process with a model in a runtime."""

    def __init__(self, runtime: str, model: str, file: Path, threads: int, baseline: Optional[Path] = None):
        checkouts = [str(baseline)] if runtime == BASELINE else []
        path = [*checkouts, str(Path(__file__).parent), *sys.path[1:]]
        kind = 'eager' if runtime == BASELINE else runtime
        self.log = tempfile.TemporaryFile('w+')  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'lib.worker', kind, model, str(file), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(path)})

    def ask(self, **order: Any) -> Any:
        """
        Raises:
            RuntimeError: The process has failed.
        """
        try:
            self.process.stdin.write(json.dumps(order) + '\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            self.log.seek(0)
            lines = self.log.read().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f'the process ended with status {self.process.returncode}')
        return json.loads(answer)

    def close(self) -> None:
        with suppress(BrokenPipeError):  # it may have failed
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


# What is measured

def create(name: str) -> nn.Module:
    if name in PEERS:
        torch.manual_seed(0)
        overlay = dict(input_size=(3, 28, 28), crop_pct=1.)
        return timm.create_model(name, num_classes=10, pretrained_cfg_overlay=overlay).eval()
    return timm.create_model(name, pretrained=True).eval()


def write_files(name: str, runtimes: Sequence[str], data: Path, folder: Path) -> Tuple[Dict[str, Path], List[str]]:
    """The files of a model, those that are missing written, and a remark on each that cannot be."""
    files, remarks, images = {}, [], None
    for key in runtimes:
        runtime = RUNTIMES.get(key)
        files[key] = folder / f'{name}.{key}{runtime.suffix}' if runtime else folder / f'{name}.safetensors'
        if files[key].exists():
            continue
        if runtime is None:
            save_file(create(name).state_dict(), files[key])
            continue
        with set_layer_config(exportable=runtime.exportable):
            model = create(name)
        if runtime.calibrated and images is None:
            images = calibration_images(data / 'train', model)
        try:
            write(runtime, model, files[key], images if runtime.calibrated else None)
        except Exception as error:  # the exporters raise what they like
            remarks.append(f'{name} in {runtime.title}: {type(error).__name__}, {str(error).strip().splitlines()[0]}')
            del files[key]
    return files, remarks


def file_size(file: Path) -> int:
    return sum(path.stat().st_size for path in files_of(file))


def measure_speed(
        name: str, files: Dict[str, Path], rounds: int, baseline: Optional[Path]
) -> Tuple[Dict[str, Dict[str, Any]], List[str]]:
    """Size, seconds and memory of a model in these runtimes, and a remark on each that fails."""
    results: Dict[str, Dict[str, Any]] = {}
    remarks = []
    input_size = create(name).pretrained_cfg['input_size']
    all_threads = torch.get_num_threads()
    workers: Dict[Tuple[str, int], Worker] = {}
    calls: Dict[Tuple[str, int, int], int] = {}  # in a round, by runtime, threads and size of the batch
    try:
        for runtime, file in files.items():
            result: Dict[str, Any] = dict(bytes=file_size(file), latency={})
            try:
                for threads in sorted({1, all_threads}):
                    worker = workers[runtime, threads] = Worker(runtime, name, file, threads, baseline)
                    for n in (1, BATCH) if threads == all_threads else (1,):
                        worker.ask(do='time', shape=(n, *input_size), calls=3)  # warms up
                        quickest = min(worker.ask(do='time', shape=(n, *input_size), calls=3))
                        calls[runtime, threads, n] = max(1, round(MIN_SECONDS / quickest))
                result['memory'] = worker.ask(do='tell memory')  # all threads come last
                results[runtime] = result
            except RuntimeError as error:
                remarks.append(f'{name} in {TITLES[runtime]}: {error}')
        calls = {key: count for key, count in calls.items() if key[0] in results}
        seconds = {key: [] for key in calls}
        for _ in tqdm(range(rounds), desc=name, unit=' rounds', leave=False):
            for (runtime, threads, n), count in calls.items():
                seconds[runtime, threads, n].append(
                    workers[runtime, threads].ask(do='time', shape=(n, *input_size), calls=count))
        for (runtime, threads, n), rows in seconds.items():
            measured = dict(
                milliseconds=1e3 * float(np.median(np.concatenate(rows))),
                percentile_95=1e3 * float(np.percentile(np.concatenate(rows), 95)),
                rounds=[1e3 * statistics.median(row) for row in rows])
            if n == 1:
                results[runtime]['latency'][str(threads)] = measured  # a string, as JSON would make of it
            else:
                results[runtime]['batch'] = measured
    finally:
        for worker in workers.values():
            worker.close()
    return results, remarks


def classify(runtime: str, name: str, file: Path, images: Path, step: int) -> List[int]:
    """The class of every image, or every `step`-th one, of a file."""
    worker = Worker(runtime, name, file, torch.get_num_threads())
    try:
        return worker.ask(do='classify', images=str(images), step=step)
    finally:
        worker.close()


def test_images(name: str, data: Path, folder: Path) -> Tuple[Path, List[int]]:
    """A file of all test images, preprocessed for a model, and their classes."""
    file = folder / f'{name}.npy'
    model = create(name)
    transform = create_transform(**resolve_model_data_config(model))
    dataset = load_split(data, 'test', transform=transform, input_img_mode=image_mode(model))
    pairs = [dataset[i] for i in tqdm(range(len(dataset)), desc='test images', unit=' images', leave=False)]
    np.save(file, np.stack([image.numpy() for image, _ in pairs]))
    return file, [label for _, label in pairs]


def percentage(a: Sequence[int], b: Sequence[int]) -> float:
    return 100 * float(np.mean(np.equal(a, b)))


def measure_accuracy(
        name: str, files: Dict[str, Path], data: Path, reference: Optional[str]
) -> Tuple[Dict[str, Dict[str, Any]], Optional[str], List[str]]:
    """Top-1 and agreement of a model in these runtimes, the reference's classes, and a remark on each that fails.

    Args:
        reference: A digit for each test image, where `files` has not the reference itself.
    """
    results, remarks = {}, []
    with tempfile.TemporaryDirectory() as folder:
        images, labels = test_images(name, data, Path(folder))
        for runtime in sorted(files, key=lambda runtime: runtime != REFERENCE):
            step = 10 if runtime in SAME else 1
            try:
                classes = classify(runtime, name, files[runtime], images, step)
            except RuntimeError as error:
                remarks.append(f'{name} in {TITLES[runtime]}: {error}')
                continue
            results[runtime] = dict(bytes=file_size(files[runtime]))
            if runtime == REFERENCE:
                reference = ''.join(map(str, classes))
            if step == 1:
                results[runtime]['top1'] = percentage(classes, labels)
            if reference is not None:
                results[runtime]['agreement'] = percentage(classes, list(map(int, reference))[::step])
    return results, reference, remarks


# Report

def quicker(result: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """The latency with the number of threads that is quicker, None where it was not measured."""
    return min(result.get('latency', {}).values(), key=lambda measured: measured['milliseconds'], default=None)


def ratio(result: Dict[str, Any], reference: Dict[str, Any]) -> Optional[float]:
    """How many times as fast as the reference with one image, round by round."""
    ours, theirs = quicker(result), quicker(reference)
    if ours is None or theirs is None:
        return None
    return statistics.median(b / a for a, b in zip(ours['rounds'], theirs['rounds']))


def table(results: Dict[str, Dict[str, Any]]) -> str:
    threads = sorted({count for result in results.values() for count in result.get('latency', {})}, key=int)
    rows = []
    for runtime in (key for key in TITLES if results.get(key)):
        result = results[runtime]
        latency, best, batch = result.get('latency', {}), quicker(result), result.get('batch')
        memory, top1 = result.get('memory'), result.get('top1')
        rows.append([
            TITLES[runtime],
            f'{result["bytes"] / 1e6:.2f}',
            *(three_digits(latency[count]['milliseconds'] if count in latency else None) for count in threads),
            three_digits(best and best['percentile_95']),
            three_digits(ratio(result, results.get('eager', {}))),
            three_digits(batch and 1e3 * BATCH / batch['milliseconds']),
            f'{memory / 2 ** 20:.0f}' if memory else '–',
            '–' if top1 is None else f'{top1:.2f}',
            '–' if result.get('agreement') is None else f'{result["agreement"]:.2f}',
        ])
    return markdown_table(
        ['runtime', 'file (MB)', *(f'one image, {count} thread{"s" * (count != "1")} (ms)' for count in threads),
         '95th percentile (ms)', 'times as fast as eager', f'images/s at {BATCH}', 'memory (MiB)', 'top-1 (%)',
         'agreement (%)'], rows)


def markdown(results: Results, remarks: Sequence[str], machine: str, software: str, picture: str) -> str:
    parts = [
        report_header('Runtimes', machine, software), docstring_body(__doc__),
        f'![Accuracy against latency]({picture})']
    for name in (name for name in SHIPPED + PEERS if name in results):
        parts += [f'## `{name}`', table(results[name])]
    return '\n\n'.join([*parts, *remarks]) + '\n'


def draw(results: Results) -> 'Figure':
    from matplotlib.figure import Figure

    def top1(name: str, runtime: str) -> Optional[float]:
        return results[name].get(REFERENCE if runtime in SAME else runtime, {}).get('top1')

    figure = Figure(figsize=(10, 6), dpi=150, layout='constrained')
    ax = figure.subplots()
    points = [
        (name, runtime, result) for name in SHIPPED if name in results for runtime, result in results[name].items()
        if (runtime in RUNTIMES or runtime == 'eager') and quicker(result) and top1(name, runtime) is not None]
    styles = marker_styles([runtime for _, runtime, _ in points])
    for (name, runtime, result), style in zip(points, styles):
        point = quicker(result)['milliseconds'], top1(name, runtime)
        ax.plot(*point, label=TITLES[runtime] if style['marker'] == 'o' else None, **style)
        if runtime == 'onnx':
            ax.annotate(name, point, xytext=(6, 6), textcoords='offset points')
    ax.set(
        xscale='log', xlabel='one image, with the quicker number of threads (ms)',
        ylabel='top-1 on the test images (%)')
    if points:
        ax.legend()
    return figure


def installed_software() -> str:
    versions = {d.name: d.version for d in distributions()}
    packages = ['torch', 'timm', 'timm-wavemix', 'onnxruntime', 'openvino', 'nncf', 'executorch']
    return ', '.join(f'{package} {versions[package]}' for package in packages if package in versions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', metavar='DATA', type=Path, help='folder of scripts/prepare_fashion_mnist.py')
    parser.add_argument(
        '--models', nargs='+', choices=SHIPPED + PEERS, default=SHIPPED + PEERS, metavar='NAME',
        help=f'models to measure (default: {", ".join(SHIPPED + PEERS)})')
    parser.add_argument(
        '--runtimes', nargs='+', choices=[*PYTORCH, *RUNTIMES], default=[*PYTORCH, *RUNTIMES], metavar='NAME',
        help=f'runtimes to measure (default: {", ".join([*PYTORCH, *RUNTIMES])})')
    parser.add_argument(
        '--baseline', metavar='DIR', type=Path, help=f'checkout of {BASELINE}, to time its eager mode too')
    parser.add_argument('--rounds', type=positive_int, default=7, help='of timing (default: %(default)s)')
    parser.add_argument('--skip', choices=['speed', 'accuracy'], help='what to leave for another run')
    parser.add_argument(
        '--files', metavar='DIR', type=Path, help="where to keep the runtimes' files (default: nowhere)")
    parser.add_argument(
        '--json', metavar='JSON', type=output_file, default='deploy.json',
        help='results, read first if they are there (default: %(default)s)')
    parser.add_argument(
        '--output', metavar='MD', type=output_file, default='deploy.md',
        help='report, with the picture beside it (default: %(default)s)')
    args = parser.parse_args()
    require_matplotlib()
    if args.baseline and not (args.baseline / 'timm_wavemix').is_dir():
        parser.error(f"'{args.baseline}' is no checkout of this repository: make one with `git worktree add`.")

    here = dict(machine=hardware_name(torch.device('cpu')), software=installed_software())
    report: Dict[str, Any] = dict(here, results={}, remarks={}, classes={})  # a digit for each test image
    if args.json.exists():
        report = json.loads(args.json.read_text(encoding='utf-8'))
        if {key: report[key] for key in here} != here:
            parser.error(
                f"'{args.json}' was measured on {report['machine']}, with {report['software']}: name another --json.")
    results: Results = report['results']
    available = [key for key in args.runtimes if key in PYTORCH or not RUNTIMES[key].missing]
    for key in set(args.runtimes) - set(available):
        report['remarks'][key] = (
            f'{TITLES[key]} is left out: {", ".join(RUNTIMES[key].missing)} is not installed, which '
            '`pip install --group deploy` does.')
    for key in available:
        report['remarks'].pop(key, None)

    def keep(name: str, rows: Dict[str, Dict[str, Any]], remarks: Sequence[str]) -> None:
        for runtime, row in rows.items():
            results[name].setdefault(runtime, {}).update(row)
        report['remarks'].update({remark.partition(':')[0]: remark for remark in remarks})
        write_text_whole(args.json, json.dumps(report))

    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.files or Path(temporary)
            folder.mkdir(exist_ok=True)
            for name in tqdm(args.models, unit=' models'):
                measured = results.setdefault(name, {})
                baseline = [BASELINE] if args.baseline and name in SHIPPED else []
                timed = [  # a rerun does not try again what has failed
                    key for key in baseline + available if f'{name} in {TITLES[key]}' not in report['remarks']]
                classified = [
                    key for key in timed
                    if key != BASELINE and args.skip != 'accuracy' and name in SHIPPED
                    and not {'top1', 'agreement'} & measured.get(key, {}).keys()]
                speed = args.skip != 'speed' and any('latency' not in measured.get(key, {}) for key in timed)
                files, remarks = write_files(name, timed if speed else classified, args.data, folder)
                keep(name, {}, remarks)
                if speed:
                    rows, remarks = measure_speed(name, files, args.rounds, args.baseline)
                    keep(name, rows, remarks)
                    files = {key: file for key, file in files.items() if key in rows}
                files = {key: file for key, file in files.items() if key in classified}
                if files:
                    reference = report['classes'].get(name)
                    rows, reference, remarks = measure_accuracy(name, files, args.data, reference)
                    if reference is not None:
                        report['classes'][name] = reference
                    keep(name, rows, remarks)
        picture = args.output.with_suffix('.png')
        draw(results).savefig(picture)
        args.output.write_text(markdown(
            results, list(report['remarks'].values()), report['machine'], report['software'], picture.name),
            encoding='utf-8')
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")
    print(args.output)


if __name__ == '__main__':
    main()
