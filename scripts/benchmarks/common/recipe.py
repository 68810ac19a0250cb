"""Recipes for timm's train.py that train_in_memory.py understands too: one table of their settings."""
import math
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple

import yaml

# settings with the only value that is done here
FIXED = dict(
    crop_pct=1.0, color_jitter=0.0, train_interpolation='bilinear', sched='cosine', sched_on_updates=True,
    model_ema=True, model_ema_warmup=True, channels_last=True)
WITHOUT_EFFECT = 'workers', 'eval_metric', 'checkpoint_hist', 'recovery_interval', 'log_interval'


class Kind(NamedTuple):
    """What a setting must be."""
    text: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are(values: Any, count: int, holds: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(holds, values))


TEXT = Kind('a text', lambda value: isinstance(value, str) and value != '')
FLAG = Kind('true or false', lambda value: isinstance(value, bool))
WHOLE = Kind('a whole number', lambda value: _is_number(value) and isinstance(value, int))
COUNT = Kind('a whole number above 0', lambda value: WHOLE.holds(value) and value > 0)
NUMBER = Kind('a number of 0 or more, such as 0.001', lambda value: _is_number(value) and value >= 0)  # 1e-3 is a text
SHARE = Kind('a number from 0 to 1', lambda value: _is_number(value) and 0 <= value <= 1)
RANGE = Kind('two numbers above 0, the lower one first', lambda value: _are(
    value, 2, lambda side: _is_number(side) and side > 0) and value[0] <= value[1])
SIZE = Kind('channels, height and width, such as [3, 28, 28]', lambda value: _are(value, 3, COUNT.holds))
CHANNELS = Kind('a number for each channel', lambda value: isinstance(value, list) and all(map(_is_number, value)))
NOISE = Kind("'const' or 'pixel'", lambda value: value in ('const', 'pixel'))
TEXTS = Kind('a list of texts', lambda value: isinstance(value, list) and all(map(TEXT.holds, value)))
MAPPING = Kind('a mapping', lambda value: isinstance(value, dict))
NEEDED = dict(
    model=TEXT, num_classes=COUNT, train_split=TEXT, val_split=TEXT, input_size=SIZE, mean=CHANNELS, std=CHANNELS,
    batch_size=COUNT, validation_batch_size=COUNT, scale=RANGE, ratio=RANGE, hflip=SHARE, reprob=SHARE, remode=NOISE,
    epochs=COUNT, opt=TEXT, lr=NUMBER, weight_decay=NUMBER, warmup_epochs=NUMBER, warmup_lr=NUMBER, min_lr=NUMBER,
    model_ema_decay=SHARE, amp=FLAG, seed=WHOLE)
OPTIONAL = dict(device_modules=TEXTS, model_kwargs=MAPPING)


def load_own_recipe(file: Path) -> Dict[str, Any]:
    """Read a recipe.

    Raises:
        OSError: It cannot be read.
        ValueError: It lacks a setting, or has one that train_in_memory.py can't do or that nobody could.
    """
    try:
        recipe = yaml.safe_load(file.read_text(encoding='utf-8'))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"'{file}' is not YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"'{file}' has no settings: name a recipe, such as one of scripts/recipes.")
    fixed = {**FIXED, 'amp_dtype': 'bfloat16'} if recipe.get('amp') is True else FIXED
    missing = [key for key in (*fixed, *NEEDED) if key not in recipe]
    if missing:
        raise ValueError(f"'{file}' does not say {', '.join(missing)}: add it, or use timm's train.py.")
    kinds = {**NEEDED, **OPTIONAL}
    wrong = [
        f'{key}: {value}, not {kinds[key].text}' for key, value in recipe.items()
        if key in kinds and not kinds[key].holds(value)]
    if not wrong:
        channels = recipe['input_size'][0]
        wrong = [f'{key}: {recipe[key]} for {channels} channels' for key in ('mean', 'std')
                 if len(recipe[key]) != channels]
        wrong += [f'std: {recipe["std"]}, which cannot be divided by'] * (0 in recipe['std'])
    if wrong:
        raise ValueError(f"'{file}' has {'; '.join(wrong)}.")
    foreign = [
        f'{key}: {value}' for key, value in recipe.items()
        if fixed.get(key, value) != value or key not in (*fixed, *kinds, *WITHOUT_EFFECT, 'amp_dtype')]
    if foreign:
        raise ValueError(f"'{file}' has {', '.join(foreign)}, which this script can't do: use timm's train.py.")
    return recipe
