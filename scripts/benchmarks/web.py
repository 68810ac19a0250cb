"""Measure the exported web page in Chromium: its size, how long it loads and runs, and how it agrees with Python.

It needs Chromium with its driver, selenium, npm and the packages of `timm-wavemix[onnx]`.
"""
import argparse
import base64
import gzip
import io
import os
import statistics
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

import timm_wavemix  # noqa: F401  registers the models
from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.browser import chromium, open_page, serve
from scripts.demo import image_mode, load_test_images
from timm_wavemix import web
from timm_wavemix.export import export

NAME = 'web'
MODELS = 'wavemix_16_5', 'wavemix_lite_8_5'
SHIPPED = [name.split('.')[0] for name in timm.list_models('*.fashion_mnist', module='wavemix', pretrained=True)]
SIZES = (28, 28), (64, 64), (200, 150), (240, 320)  # width and height that the test images are enlarged to
RESIZERS = 'page', 'canvas high', 'canvas low'

CLASSIFY = '''
const [images, how, done] = arguments;
import('./app.js').then(async ({app, readImage, resizeAndCrop, run}) => {
  const {config, sessions} = await app;
  const classes = [];
  for (const bytes of images) {
    const blob = new Blob([Uint8Array.fromBase64(bytes)]);
    let image = await readImage(blob);
    if (how !== 'page') {
      const [, height, width] = config.input_size;
      const scale = Math.max(width / image.width, height / image.height);
      const [w, h] = [Math.round(image.width * scale), Math.round(image.height * scale)];
      const context = new OffscreenCanvas(w, h).getContext('2d');
      context.imageSmoothingQuality = how.split(' ')[1];
      context.drawImage(await createImageBitmap(blob), 0, 0, w, h);
      image = context.getImageData(0, 0, w, h);
    }
    const {probabilities} = await run(sessions.float32, config, resizeAndCrop(image, config));
    classes.push(probabilities.indexOf(Math.max(...probabilities)));
  }
  done(classes);
}).catch((error) => done(String(error)));
'''
TIME = '''
const [name, rounds, done] = arguments;
import('./app.js').then(async ({app, run}) => {
  const {config, sessions} = await app;
  const bytes = new Uint8Array(config.input_size.reduce((a, b) => a * b));
  const times = [];
  for (let i = 0; i < rounds; i++) times.push((await run(sessions[name], config, bytes)).milliseconds);
  done(times);
}).catch((error) => done(String(error)));
'''


@dataclass
class Page:
    """The page of a model. Bytes are those of all files, gzipped ones what a host sends that compresses."""
    model: str
    page_bytes: int  # without the model and the examples
    page_gzipped: int
    model_bytes: Dict[str, int]
    load_ms: float  # from an empty cache on a local server to a model that has run once; median
    run_ms: Dict[str, float]  # one image, median
    agreement: Dict[str, Dict[str, float]]  # by resizer and size: % of the images that get the class of Python


@dataclass
class Report(report.Measured):
    browser: str
    rounds: int
    images: int
    pages: List[Page]

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Report':
        return cls(**{**values, 'pages': [Page(**page) for page in values['pages']]})


def in_page(browser: Any, script: str, *args: Any) -> List[float]:
    result = browser.execute_async_script(script, *args)
    if isinstance(result, str):
        raise RuntimeError(f'the page failed: {result}')
    return result


def agreement(browser: Any, model: torch.nn.Module, how: str, images: Sequence[Image.Image]) -> float:
    """Percentage of the images, sent as PNG, to which the page and Python give the same class."""
    config = resolve_model_data_config(model)
    transform, mode = create_transform(**config), image_mode(model)
    with torch.inference_mode():
        expected = model(torch.stack([transform(image.convert(mode)) for image in images])).argmax(1).tolist()
    classes = []
    for start in range(0, len(images), 50):  # more would make long messages
        encoded = []
        for image in images[start:start + 50]:
            stream = io.BytesIO()
            image.save(stream, 'PNG')
            encoded.append(base64.b64encode(stream.getvalue()).decode())
        classes += in_page(browser, CLASSIFY, encoded, how)
    return 100 * float(np.mean(np.equal(classes, expected)))


def measure_page(browser: Any, name: str, folder: Path, rounds: int, images: int) -> Page:
    files = [folder / file for file in ('index.html', 'app.js', 'model.json', *web.RUNTIME_FILES)]
    models = {kind: (folder / file).stat().st_size for file, kind in web.MODELS.items() if (folder / file).exists()}
    load_times, run_times = [], {kind: [] for kind in models}
    model = timm.create_model(name, pretrained=True).eval()
    browser.execute_cdp_cmd('Network.setCacheDisabled', {'cacheDisabled': True})
    with serve(folder) as url:
        for _ in range(rounds):
            open_page(browser, url)
            load_times.append(browser.execute_script('return performance.now()'))
            for kind, times in run_times.items():
                times += in_page(browser, TIME, kind, 20)
        small = list(chain(*zip(*load_test_images())))[:images]  # from all classes in turn
        by_size = {f'{w}x{h}': [image.resize((w, h), Image.Resampling.BICUBIC) for image in small] for w, h in SIZES}
        agreements = {
            how: {size: agreement(browser, model, how, enlarged) for size, enlarged in by_size.items()}
            for how in RESIZERS}
    return Page(
        model=name, page_bytes=sum(file.stat().st_size for file in files),
        page_gzipped=sum(len(gzip.compress(file.read_bytes())) for file in files), model_bytes=models,
        load_ms=statistics.median(load_times),
        run_ms={kind: statistics.median(times) for kind, times in run_times.items()}, agreement=agreements)


def measure(args: argparse.Namespace) -> Report:
    pages = []
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        version = browser.capabilities['browserVersion']
        for name in args.models:
            folder = Path(temporary) / name
            export(name, 'web', folder, args.calibration)
            pages.append(measure_page(browser, name, folder, args.rounds, args.images))
    return Report(
        command=command.command_line(NAME),
        machine=f"{report.hardware_name(torch.device('cpu'))}, load average {os.getloadavg()[0]:.1f}",
        software=f'{report.SOFTWARE}, onnxruntime-web {web.ONNXRUNTIME_WEB}', browser=f'Chromium {version}, headless',
        rounds=args.rounds, images=args.images, pages=pages)


def markdown(results: Report, stem: Path) -> str:
    def megabytes(size: Optional[int]) -> str:
        return report.three_digits(None if size is None else size / 1e6)

    sizes = report.table([
        ('model', lambda page: f'`{page.model}`'),
        ('page without model (MB)', lambda page: megabytes(page.page_bytes)),
        ('gzipped (MB)', lambda page: megabytes(page.page_gzipped)),
        ('float model (MB)', lambda page: megabytes(page.model_bytes['float32'])),
        ('int8 model (MB)', lambda page: megabytes(page.model_bytes.get('int8'))),
        ('load (ms)', lambda page: report.three_digits(page.load_ms)),
        ('one image, float (ms)', lambda page: report.three_digits(page.run_ms['float32'])),
        ('one image, int8 (ms)', lambda page: report.three_digits(page.run_ms.get('int8'))),
    ], results.pages)
    rows = [
        [f'`{page.model}`', how, *(f'{share:.1f}' for share in by_size.values())]
        for page in results.pages for how, by_size in page.agreement.items()]
    agreements = report.markdown_table(
        ['model', 'resized by', *(f'{size} (%)' for size in results.pages[0].agreement['page'])], rows)
    return report.pages([
        report.head(
            'The web page', NAME, stem, results.command, results.machine, f'{results.browser}, {results.software}'),
        'One thread of WebAssembly, without a GPU. The page is loaded from a server on the same machine with an empty '
        'cache, '
        f'{results.rounds} times; loading ends when the models have run once. A run is the time from an array of one '
        'image to an array of logits, through the worker that the model runs in. Times are medians.',
        sizes,
        f'The next table has the share of {results.images} test images, enlarged to these sizes and given to the page '
        'as PNG, that get the same class as from timm\'s transform and PyTorch. "page" is the resampling of app.js, '
        '"canvas" that of the browser with this `imageSmoothingQuality`.',
        agreements,
    ])


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        '--models', nargs='+', choices=SHIPPED, default=MODELS, metavar='NAME',
        help=f'models to export, of {", ".join(SHIPPED)} (default: {", ".join(MODELS)})')
    parser.add_argument('--calibration', metavar='DIR', type=Path, help='training images, for the int8 models')
    parser.add_argument('--images', type=command.positive_int, default=500, help='test images (default: %(default)s)')
    command.add_rounds_argument(parser)
    command.add_output_arguments(parser, NAME)
    command.run(parser, partial(report.work, NAME, Report.from_json, measure, markdown, None), argv)


if __name__ == '__main__':
    main()
