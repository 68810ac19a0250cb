"""Measure every shipped model in every runtime that it can go to: file, latency, speed, memory, accuracy.

Latency is the time from an array of one image to an array of logits. Each model and runtime has two processes for it,
one of one thread and one of a thread for each core. The processes of a model take turns, in alternating rounds, on
random images of 28x28. The 95th percentile and how many times as fast as eager are those of the quicker process, for
eager too. "1f138ab" is the eager mode of another checkout (--baseline).

Images per second and memory are those of the process with all threads. Memory is the most that it has had when it has
run batches of 1 and of 64, with Python and the runtime in it, and with what torch.compile needs. ExecuTorch's batches
are single calls, and its Python interface has torch in memory, which a phone has not. The file of PyTorch is that of
float32 weights.

Top-1 is that of the same shipped weights on all test images, preprocessed alike, whatever the runtime; nothing was
selected by it. The recipe of the static int8 files was chosen on validation images, their ranges come from 500 training
images. Agreement is the share of test images that get the same class as from eager. The float32 rows without a top-1
compute the same function: their agreement is that of every tenth image, and the picture has them at eager's top-1.

ResNet-18 and MobileNetV3 have random weights here, so no accuracy. Their stems have strides: they look at maps of 7x7
and less, where WaveMix keeps 28x28.

What has been measured is kept in the JSON file, on this machine with this software, and a model of which nothing is
missing is not measured again. What has failed is not tried again as long as its remark is in that file. A runtime that
is not installed is left out.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
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
    COLORS,
    MARKERS,
    docstring_body,
    hardware_name,
    markdown_table,
    output_file,
    positive_int,
    report_header,
    require_matplotlib,
    three_digits,
    write_text_whole,
    write_whole,
)
from lib.worker import PYTORCH
from timm_wavemix.export import RUNTIMES, calibration_images, files_of, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHIPPED = [name.split('.')[0] for name in timm.list_models('*.fashion_mnist', module='wavemix', pretrained=True)]
PEERS = ['resnet18', 'mobilenetv3_small_100']  # without weights
BASELINE = '1f138ab'
REFERENCE = 'eager'
SAME = {'deployed', 'compiled', 'aoti', 'openvino', 'executorch'}  # compute what the reference does, in float32
TITLES = {BASELINE: f'PyTorch, eager, at {BASELINE}', **PYTORCH, **{name: r.title for name, r in RUNTIMES.items()}}
BATCH = 64
MIN_SECONDS = 0.3  # of the calls of a round
MIN_CALLS = 10  # of one image in a round
Results = Dict[str, Dict[str, Dict[str, Any]]]  # by model and runtime


# Processes

class Worker:
    """A process with a model in a runtime."""

    def __init__(self, runtime: str, model: str, file: Path, threads: int, baseline: Optional[Path] = None):
        benchmarks = Path(__file__).resolve().parent
        is_baseline = runtime == BASELINE
        kind = 'eager' if is_baseline else runtime
        self.log = tempfile.TemporaryFile('w+')  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'lib.worker', kind, model, str(file.resolve()), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            cwd=baseline if is_baseline else benchmarks,  # where -m imports from first
            env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(benchmarks), *sys.path[1:]])})

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
            status = self.process.wait()
            if status < 0:
                raise RuntimeError(f'the system has killed the process with signal {-status}, perhaps for its memory')
            self.log.seek(0)
            lines = self.log.read().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f'the process ended with status {status}')
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
    """Write the files of a model, with a remark on each that cannot be written."""
    files, remarks, images = {}, [], None
    for key in runtimes:
        runtime = RUNTIMES.get(key)
        if runtime is None:
            files[key] = folder / f'{name}.safetensors'  # one for all that is PyTorch
            if not files[key].exists():
                save_file(create(name).state_dict(), files[key])
            continue
        files[key] = folder / f'{name}.{key}{runtime.suffix}'
        with set_layer_config(exportable=runtime.exportable):
            model = create(name)
        if runtime.calibrated and images is None:
            images = calibration_images(data / 'train', model)
        try:
            write(runtime, model, files[key], images if runtime.calibrated else None)
        except RuntimeError as error:
            remarks.append(f'{name} in {runtime.title}: {error}')
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
                        calls[runtime, threads, n] = max(MIN_CALLS if n == 1 else 1, round(MIN_SECONDS / quickest))
                result['memory'] = worker.ask(do='tell memory')  # all threads come last
                results[runtime] = result
            except RuntimeError as error:
                remarks.append(f'{name} in {TITLES[runtime]}: {error}')
        seconds = {key: [] for key in calls}
        for _ in tqdm(range(rounds), desc=name, unit=' rounds', leave=False):
            for (runtime, threads, n), rows in seconds.items():
                if runtime not in results:
                    continue
                order = dict(do='time', shape=(n, *input_size), calls=calls[runtime, threads, n])
                try:
                    rows.append(workers[runtime, threads].ask(**order))
                except RuntimeError as error:
                    remarks.append(f'{name} in {TITLES[runtime]}: {error}')
                    del results[runtime]
        for (runtime, threads, n), rows in seconds.items():
            if runtime not in results:
                continue
            measured = dict(
                milliseconds=1e3 * float(np.median(np.concatenate(rows))),
                percentile_95=1e3 * float(np.percentile(np.concatenate(rows), 95)),
                rounds=[1e3 * statistics.median(row) for row in rows])
            if n == 1:
                results[runtime]['latency'][str(threads)] = measured  # a string, as in JSON
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


def markdown(report: Dict[str, Any], picture: str) -> str:
    parts = [
        report_header('Runtimes', report['machine'], listed(report['software'])), docstring_body(__doc__),
        f'![Accuracy against latency]({picture})']
    for name in (name for name in SHIPPED + PEERS if name in report['results']):
        parts += [f'## `{name}`', table(report['results'][name])]
    return '\n\n'.join([*parts, *report['remarks'].values()]) + '\n'


def draw(results: Results) -> 'Figure':
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    def top1(name: str, runtime: str) -> Optional[float]:
        return results[name].get(REFERENCE if runtime in SAME else runtime, {}).get('top1')

    figure = Figure(figsize=(10, 6), dpi=150, layout='constrained')
    ax = figure.subplots()
    points = [
        (name, TITLES[runtime], quicker(result), top1(name, runtime))
        for name in SHIPPED for runtime, result in results.get(name, {}).items() if runtime in ('eager', *RUNTIMES)]
    points = [point for point in points if None not in point]
    markers = dict(zip(dict.fromkeys(name for name, *_ in points), MARKERS))
    colors = dict(zip(dict.fromkeys(title for _, title, *_ in points), COLORS))
    for name, title, best, accuracy in points:
        ax.plot(best['milliseconds'], accuracy, markers[name], color=colors[title], markersize=8, alpha=0.8)
    ax.set(
        xscale='log', xlabel='one image, with the quicker number of threads (ms)',
        ylabel='top-1 on the test images (%)')
    handles = [Line2D([], [], color='gray', marker=m, linestyle='none', label=n) for n, m in markers.items()]
    handles += [Line2D([], [], color=c, linewidth=4, label=title) for title, c in colors.items()]
    figure.legend(handles=handles, loc='outside right upper')
    return figure


def installed_software() -> Dict[str, str]:
    """The version of each package that bears on the figures."""
    packages = ['torch', 'timm', 'timm-wavemix', 'onnxruntime', 'openvino', 'nncf', 'executorch']
    versions = {d.name: d.version for d in distributions()}
    return {package: versions[package] for package in packages if package in versions}


def listed(software: Dict[str, str]) -> str:
    return ', '.join(f'{package} {version}' for package, version in software.items())


def read_report(file: Path) -> Dict[str, Any]:
    """What has been measured here, which is nothing if the file is not there.

    `classes` are the reference's, by model: a digit for each test image.

    Raises:
        ValueError: The file is of another machine or other software, or is no report.
    """
    machine, software = hardware_name(torch.device('cpu')), installed_software()
    if not file.exists():
        return dict(machine=machine, software=software, results={}, remarks={}, classes={})
    try:
        report: Dict[str, Any] = json.loads(file.read_text(encoding='utf-8'))
        theirs = report['software']
        same = report['machine'] == machine and all(
            theirs.get(package, version) == version for package, version in software.items())
        names = listed(theirs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{file}' is no report of this script: name another --json.") from error
    if not same:
        raise ValueError(f"'{file}' was measured on {report['machine']}, with {names}: name another --json.")
    theirs.update(software)
    return report


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
        '--json', metavar='JSON', type=output_file, default='deploy.json',
        help='results, read first if they are there (default: %(default)s)')
    parser.add_argument(
        '--output', metavar='MD', type=output_file, default='deploy.md',
        help='report, with the picture beside it (default: %(default)s)')
    args = parser.parse_args()
    require_matplotlib()
    if args.baseline and not (args.baseline / 'timm_wavemix').is_dir():
        parser.error(f"'{args.baseline}' is no checkout of this repository: make one with `git worktree add`.")
    for folder in args.data / 'train', args.data / 'test':
        if not folder.is_dir():
            parser.error(f"there is no folder '{folder}': make it with scripts/prepare_fashion_mnist.py.")
    try:
        report = read_report(args.json)
    except ValueError as error:
        parser.error(str(error))
    results: Results = report['results']
    available = [key for key in args.runtimes if key in PYTORCH or not RUNTIMES[key].missing]
    for key in (key for key in args.runtimes if key not in available):
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
            for name in tqdm(args.models, unit=' models'):
                measured = results.setdefault(name, {})
                baseline = [BASELINE] if args.baseline and name in SHIPPED else []
                timed = [  # a rerun does not try again what has failed
                    key for key in baseline + available if f'{name} in {TITLES[key]}' not in report['remarks']]
                classified = [
                    key for key in timed
                    if key != BASELINE and args.skip != 'accuracy' and name in SHIPPED
                    and 'agreement' not in measured.get(key, {})]
                speed = args.skip != 'speed' and any('latency' not in measured.get(key, {}) for key in timed)
                files, remarks = write_files(name, timed if speed else classified, args.data, Path(temporary))
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
        write_whole(picture, partial(draw(results).savefig, format='png'))
        write_text_whole(args.output, markdown(report, picture.name))
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")
    print(args.output)


if __name__ == '__main__':
    main()
