"""A static page that runs an ONNX file in the browser: index.html and app.js beside this file, and what they need."""
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, cast
from urllib.parse import quote

from huggingface_hub import SpaceCard, SpaceCardData
from timm.data import resolve_input_data_config
from torch import nn

from ..checkpoints import config_of
from ..hub.card import inline
from ..hub.metadata import hub_configs, read_metadata

PAGE = Path(__file__).parent
ONNXRUNTIME_WEB = '1.30.0'
RUNTIME_FILES = ('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm')  # the smallest that run without a GPU
MODELS = {'model.onnx': 'float32', 'model-int8.onnx': 'int8'}
INTERPOLATIONS = ('bilinear', 'bicubic', 'lanczos')  # those of app.js
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')


def write_page(
        model: nn.Module, folder: Path, examples: Optional[Path] = None, metadata_file: Optional[Path] = None) -> None:
    """Write the page around the ONNX files that `folder` has, with the names in `MODELS`.

    Args:
        model: The model of these files, with its `pretrained_cfg`.
        folder: Where to write.
        examples: Folder of images that the page offers. Their names are those of the files.
        metadata_file: YAML file with what the model can't know, like those of hub_configs/.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: The page cannot prepare images as this model needs them, or an argument does not fit it.
    """
    page = _page_data(model, metadata_file)
    page['examples'] = _copy_examples(examples, folder / 'examples') if examples else []
    page['models'] = [
        {'name': name, 'file': file, 'bytes': (folder / file).stat().st_size}
        for file, name in MODELS.items() if (folder / file).exists()]
    for file in 'index.html', 'app.js':
        shutil.copyfile(PAGE / file, folder / file)
    card = page.pop('card')
    (folder / 'model.json').write_text(json.dumps(page, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    lines = '\n'.join(f'- **{term}:** {inline(text)}' for term, text in page['facts'])
    SpaceCard(
        f'---\n{card.to_yaml()}\n---\n\n# {inline(page["title"])}\n\n{page["lead"]}\n\n{lines}\n\n'
        f'The page runs the model with onnxruntime-web {ONNXRUNTIME_WEB} (MIT licence, Microsoft).\n'
    ).save(folder / 'README.md')


def copy_runtime(folder: Path, package: Optional[Path] = None) -> None:
    """Put onnxruntime-web into a folder, so that the page needs no other server.

    Args:
        folder: Where to write.
        package: Folder of an installed onnxruntime-web. The default is to get `ONNXRUNTIME_WEB` with npm.

    Raises:
        OSError: There is no npm, or no such package.
        RuntimeError: npm cannot download it.
    """
    if package:
        for name in RUNTIME_FILES:
            shutil.copyfile(package / 'dist' / name, folder / name)
        return
    npm = shutil.which('npm')
    if npm is None:
        raise FileNotFoundError(
            'npm is not installed, which downloads onnxruntime-web: install Node.js, or name the folder of an '
            'onnxruntime-web with --onnxruntime-web.')
    with tempfile.TemporaryDirectory() as temporary:
        done = subprocess.run(
            [npm, 'pack', '--silent', f'onnxruntime-web@{ONNXRUNTIME_WEB}'], cwd=temporary, capture_output=True,
            text=True)
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().partition('\n')[0]
            raise RuntimeError(f'npm cannot download onnxruntime-web {ONNXRUNTIME_WEB}: {reason or "is it online?"}')
        archive, = Path(temporary).glob('*.tgz')
        with tarfile.open(archive) as tar:
            for name in RUNTIME_FILES:
                with tar.extractfile(f'package/dist/{name}') as source:  # type: ignore[union-attr]  # it is a file
                    (folder / name).write_bytes(source.read())


def _copy_examples(source: Path, target: Path) -> List[Dict[str, str]]:
    files = sorted(path for path in source.glob('*') if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(f"'{source}' itself has no PNG, JPEG or WebP files: name another for --examples.")
    target.mkdir()
    for path in files:
        shutil.copyfile(path, target / path.name)
    return [
        {'file': f'examples/{quote(path.name)}', 'name': re.sub(r'^\d+_|_', ' ', path.stem).strip() or path.stem}
        for path in files]


def _page_data(model: nn.Module, metadata_file: Optional[Path]) -> Dict[str, Any]:
    """What model.json holds, and the metadata of the Space's card."""
    cfg, data = config_of(model), resolve_input_data_config(model)
    num_classes = cast(int, model.num_classes)
    channels, height, width = data['input_size']
    if channels not in (1, 3):
        raise ValueError(f'the page reads colour and grey images, the model takes {channels} channels: take onnx.')
    if data['interpolation'] not in INTERPOLATIONS or data['crop_mode'] not in ('center', 'squash'):
        raise ValueError(
            f"the page cannot resize with interpolation '{data['interpolation']}' and crop_mode '{data['crop_mode']}': "
            'take onnx.')
    metadata = read_metadata(metadata_file) if metadata_file else {}
    given, labels = metadata.get('label_names'), cfg.get('label_names')
    if given and len(given) != num_classes:
        raise ValueError(f"'{metadata_file}' has {len(given)} label_names, the model {num_classes} classes: name all.")
    labels = given or (labels if labels and len(labels) == num_classes else None)
    published = metadata_file == hub_configs() / f'{cfg["architecture"]}.{cfg.get("tag")}.yaml'
    name = f'{cfg["architecture"]}.{cfg["tag"]}' if published else cfg['architecture']
    license_id = metadata.get('weights', {}).get('license')
    dataset, metrics, use = (metadata.get(section, {}) for section in ('dataset', 'metrics', 'use'))
    facts: List[Tuple[str, Any]] = [
        ('Classes', ', '.join(labels) if labels and len(labels) <= 100 else num_classes),
        ('Every image', 'gets one of these classes, even if it shows something else'),
        ('Made for', use.get('intended')),
        ('Limits', use.get('limits')),
        ('Data set', dataset.get('name')),
        ('Top-1 accuracy', f'{metrics["top1"]} % ({metrics.get("source", "measured")})' if 'top1' in metrics else None),
        ('Image size', f'{width}x{height} pixels, {"colour" if channels == 3 else "grey"}'),
        ('Licence', license_id),
    ]
    return {
        'title': name,
        'lead': f'An image classifier with {num_classes} classes. It runs in your browser.',
        'labels': labels,
        **{key: data[key] for key in ('input_size', 'crop_pct', 'crop_mode', 'interpolation', 'mean', 'std')},
        'facts': [(term, str(text)) for term, text in facts if text],
        'card': SpaceCardData(
            title=name, sdk='static', license=license_id,
            tags=['timm', 'timm_wavemix', 'image-classification']),
    }
