"""Measure every shipped model in every runtime that it can be exported to: file, latency, speed, memory, accuracy.

What has been measured is kept in the JSON file of the results, and is not measured again on this machine with this
software. A runtime that is not installed is left out.
"""
import argparse
import json
import statistics
import tempfile
from dataclasses import asdict
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.layers import set_layer_config
from torch import nn
from tqdm import tqdm

from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.images import load_split
from scripts.benchmarks.common.process import Process
from scripts.benchmarks.common.timing import alternate
from scripts.benchmarks.deploy_report import (
    BATCH,
    NAME,
    PEERS,
    REFERENCE,
    SAME,
    SHIPPED,
    TITLES,
    Report,
    Result,
    Timing,
    draw,
    listed,
    markdown,
)
from scripts.demo import image_mode
from timm_wavemix.export import RUNTIMES, calibration_images, files_of, write

MIN_SECONDS = 0.3  # of the calls of a round
MIN_CALLS = 10  # of one image in a round
Remarks = List[Tuple[str, str]]  # a runtime, and what failed in it


class Turn(NamedTuple):
    """What is timed: a runtime with threads on a batch."""
    runtime: str
    threads: int
    batch: int


# What is measured

def create(name: str) -> nn.Module:
    if name in PEERS:
        torch.manual_seed(0)
        overlay = dict(input_size=(3, 28, 28), crop_pct=1.)
        return timm.create_model(name, num_classes=10, pretrained_cfg_overlay=overlay).eval()
    return timm.create_model(name, pretrained=True).eval()


def write_files(name: str, runtimes: Sequence[str], data: Path, folder: Path) -> Tuple[Dict[str, Path], Remarks]:
    """Write the files of a model, with a remark on each that cannot be written."""
    files, images = {}, None
    remarks: Remarks = []
    for key in runtimes:
        runtime = RUNTIMES.get(key)
        if runtime is None:
            files[key] = folder / f'{name}.safetensors'  # one for all that is PyTorch
            if not files[key].exists():
                save_file(create(name).state_dict(), files[key])
            continue
        with set_layer_config(exportable=runtime.exportable):
            model = create(name)
        needs_images = runtime.calibration == 'required'
        if needs_images and images is None:
            images = calibration_images(data / 'train', model)
        file = folder / f'{name}.{key}{runtime.suffix}'
        try:
            write(runtime, model, file, images if needs_images else None)
        except RuntimeError as error:
            remarks.append((key, str(error)))
        else:
            files[key] = file
    return files, remarks


def file_size(file: Path) -> int:
    return sum(path.stat().st_size for path in files_of(file))


def start(
        name: str, runtime: str, file: Path, threads: int, processes: Dict[Tuple[str, int], Process],
) -> Tuple[Dict[Turn, Dict[str, Any]], Optional[int]]:
    """Start a process and warm it up: the orders of its turns in a round, and the peak of its memory.

    Raises:
        RuntimeError: The process has failed.
    """
    input_size = create(name).pretrained_cfg['input_size']
    process = processes[runtime, threads] = Process(runtime, name, file, threads)
    orders = {}
    for n in (1, BATCH) if threads == torch.get_num_threads() else (1,):
        order = dict(do='time', shape=(n, *input_size), calls=3)
        process.ask(**order)
        fastest = min(process.ask(**order))
        calls = max(MIN_CALLS if n == 1 else 1, round(MIN_SECONDS / fastest))
        orders[Turn(runtime, threads, n)] = {**order, 'calls': calls}
    return orders, process.ask(do='memory')


def summarize(rounds: Sequence[Sequence[float]]) -> Timing:
    """Of the seconds of each call in each round."""
    milliseconds = 1e3 * np.concatenate(rounds)
    return Timing(
        float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)),
        [1e3 * statistics.median(seconds) for seconds in rounds])


def measure_speed(name: str, files: Dict[str, Path], rounds: int) -> Tuple[Dict[str, Result], Remarks]:
    """Size, speed and memory of a model in these runtimes, and a remark on each that fails."""
    results: Dict[str, Result] = {}
    remarks: Remarks = []
    processes: Dict[Tuple[str, int], Process] = {}
    orders: Dict[Turn, Dict[str, Any]] = {}
    try:
        for runtime, file in files.items():
            result = Result(file_size(file))
            try:
                for threads in sorted({1, torch.get_num_threads()}):
                    more, result.memory = start(name, runtime, file, threads, processes)
                    orders.update(more)
            except RuntimeError as error:
                remarks.append((runtime, str(error)))
            else:
                results[runtime] = result
        seconds, errors = alternate(
            {turn: partial(processes[turn.runtime, turn.threads].ask, **order) for turn, order in orders.items()
             if turn.runtime in results},
            rounds, name)
    finally:
        for process in processes.values():
            process.close()
    for turn, error in errors.items():
        remarks.append((turn.runtime, str(error)))
        results.pop(turn.runtime, None)
    for turn, times in seconds.items():
        if turn.runtime not in results:
            continue
        if turn.batch == 1:
            results[turn.runtime].latency[str(turn.threads)] = summarize(times)  # a string, as in JSON
        else:
            results[turn.runtime].batch = summarize(times)
    return results, remarks


def classify(runtime: str, name: str, file: Path, images: Path, step: int) -> List[int]:
    """The class of every image, or every `step`-th one, of a file."""
    process = Process(runtime, name, file, torch.get_num_threads())
    try:
        return process.ask(do='classify', images=str(images), step=step)
    finally:
        process.close()


def load_test_images(name: str, data: Path, folder: Path) -> Tuple[Path, List[int]]:
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
        name: str, files: Dict[str, Path], data: Path, measured: Report,
) -> Tuple[Dict[str, Result], Remarks]:
    """Top-1 and agreement of a model in these runtimes, and a remark on each that fails. Keeps eager's classes."""
    results: Dict[str, Result] = {}
    remarks: Remarks = []
    with tempfile.TemporaryDirectory() as folder:
        images, labels = load_test_images(name, data, Path(folder))
        for runtime in sorted(files, key=lambda runtime: runtime != REFERENCE):
            step = 10 if runtime in SAME else 1
            try:
                classes = classify(runtime, name, files[runtime], images, step)
            except RuntimeError as error:
                remarks.append((runtime, str(error)))
                continue
            result = results[runtime] = measured.results[name].get(runtime) or Result(file_size(files[runtime]))
            if runtime == REFERENCE:
                measured.classes[name] = ''.join(map(str, classes))
            if step == 1:
                result.top1 = percentage(classes, labels)
            if name in measured.classes:
                result.agreement = percentage(classes, list(map(int, measured.classes[name]))[::step])
    return results, remarks


# The command

def installed_software() -> Dict[str, str]:
    """The version of each package that bears on the figures."""
    packages = ['torch', 'timm', 'timm-wavemix', 'onnxruntime', 'openvino', 'nncf', 'executorch', 'ai-edge-litert']
    versions = {d.name: d.version for d in distributions()}
    return {package: versions[package] for package in packages if package in versions}


def earlier_report(file: Path) -> Report:
    """What has been measured here, which is nothing if the file is not there.

    Raises:
        ValueError: The file is of another machine or other software, or has no results.
    """
    machine, software = report.hardware_name(torch.device('cpu')), installed_software()
    new = Report(command.command_line(NAME), machine, software)
    if not file.exists():
        return new
    earlier = report.load_json(file, NAME, Report.from_json)
    if earlier.machine != machine or any(
            earlier.software.get(package, version) != version for package, version in software.items()):
        raise ValueError(
            f"'{file}' was measured on {earlier.machine}, with {listed(earlier.software)}: name another --output.")
    earlier.software.update(software)
    return earlier


def measure_model(name: str, runtimes: Sequence[str], args: argparse.Namespace, measured: Report, folder: Path) -> None:
    """Add to the report what it lacks of a model, and write it as far as it has come."""
    rows = measured.results.setdefault(name, {})

    def keep(results: Dict[str, Result], remarks: Iterable[Tuple[str, str]]) -> None:
        rows.update(results)
        measured.remarks.update({
            f'{name} in {TITLES[runtime]}': f'{name} in {TITLES[runtime]}: {text}' for runtime, text in remarks})
        command.write_text_whole(report.file_of(args.output, '.json'), json.dumps(asdict(measured), indent=1) + '\n')

    timed = [
        key for key in runtimes if not (args.skip_failed and f'{name} in {TITLES[key]}' in measured.remarks)]
    for key in timed:
        measured.remarks.pop(f'{name} in {TITLES[key]}', None)
    classified = [
        key for key in timed if args.skip != 'accuracy' and name in SHIPPED
        and (key not in rows or rows[key].agreement is None)]
    speed = args.skip != 'speed' and any(key not in rows or not rows[key].latency for key in timed)
    files, remarks = write_files(name, timed if speed else classified, args.data, folder)
    keep({}, remarks)
    if speed:
        results, remarks = measure_speed(name, files, args.rounds)
        for key, result in results.items():
            if key in rows:
                result.top1, result.agreement = rows[key].top1, rows[key].agreement
        keep(results, remarks)
        files = {key: file for key, file in files.items() if key in results}
    files = {key: file for key, file in files.items() if key in classified}
    if files:
        keep(*measure_accuracy(name, files, args.data, measured))


def measure(args: argparse.Namespace) -> Report:
    if not args.data:
        raise argparse.ArgumentError(None, 'DATA is missing: name the folder of scripts/prepare_fashion_mnist.py.')
    for split in 'train', 'test':
        load_split(args.data, split)
    measured = earlier_report(report.file_of(args.output, '.json'))
    missing = {key: RUNTIMES[key].missing for key in args.runtimes if key in RUNTIMES}
    for key in args.runtimes:
        measured.remarks.pop(key, None)
        if missing.get(key):
            measured.remarks[key] = (
                f'{TITLES[key]} is left out: {", ".join(missing[key])} is not installed, which '
                '`pip install --group deploy` does.')
    runtimes = [key for key in args.runtimes if not missing.get(key)]
    with tempfile.TemporaryDirectory() as folder:
        for name in tqdm(args.models, unit=' models'):
            measure_model(name, runtimes, args, measured, Path(folder))
    return measured


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        'data', metavar='DATA', nargs='?', type=Path, help='folder of scripts/prepare_fashion_mnist.py')
    parser.add_argument(
        '--models', nargs='+', choices=SHIPPED + PEERS, default=SHIPPED + PEERS, metavar='NAME',
        help=f'models to measure (default: {", ".join(SHIPPED + PEERS)})')
    parser.add_argument(
        '--runtimes', nargs='+', choices=list(TITLES), default=list(TITLES), metavar='NAME',
        help=f'runtimes to measure (default: {", ".join(TITLES)})')
    parser.add_argument('--rounds', type=command.positive_int, default=7, help='of timing (default: %(default)s)')
    parser.add_argument('--skip', choices=['speed', 'accuracy'], help='what to leave for another run')
    parser.add_argument(
        '--skip-failed', action='store_true', help='do not try again what has failed in an earlier run')
    command.add_output_arguments(parser, NAME)
    command.run(parser, partial(report.work, NAME, Report.from_json, measure, markdown, draw), argv)


if __name__ == '__main__':
    main()
