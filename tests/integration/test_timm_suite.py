"""timm's own model tests, from the sdist of the installed timm, over every model that this package registers."""
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import pytest
import timm

CACHE = Path(__file__).parents[2] / '.cache'
MODULES = ['wavemix']
TAGGED = set(timm.list_models(module=MODULES, include_tags=True))
SHIPPED = {name for name in TAGGED if timm.get_pretrained_cfg(name).file}
LEFT_OUT = [  # from timm's tests
    # they fetch weights from the Hub; test_official.py loads those in the same ways
    f'(load_pretrained or features_pretrained) and not ({" or ".join(SHIPPED)})',
    # it runs the model once for each block, which takes these minutes, and others have their blocks and stems
    'prune_intermediate_layers_contract and (256_12 or 256_16)',
]
PREFIXES = ['wavemix', 'fnet2d', 'mlp_mixer2d']  # of the names of their models
FEATURE_LIST = 'FEAT_INTER_FILTERS = ['  # the modules whose forward_intermediates timm tests


@pytest.fixture(scope='module')
def timm_tests(tmp_path_factory):
    """timm's `tests/` folder, with our modules in its list."""
    sdist = CACHE / f'timm-{timm.__version__}.tar.gz'
    if not sdist.exists():
        subprocess.run(
            [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--no-binary', 'timm',
             '--dest', CACHE, f'timm=={timm.__version__}'], check=True)
    folder = tmp_path_factory.mktemp('timm')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter='data')
    tests = folder / f'timm-{timm.__version__}' / 'tests'
    source = (tests / 'test_models.py').read_text()
    assert source.count(FEATURE_LIST) == 1, "timm's test file has changed, FEAT_INTER_FILTERS is not where it was"
    (tests / 'test_models.py').write_text(source.replace(FEATURE_LIST, f'{FEATURE_LIST}*{MODULES}, '))
    return tests


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_timms_model_tests_pass_without_a_skip(timm_tests, tmp_path):
    report = tmp_path / 'report.xml'
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-k', f'({" or ".join(PREFIXES)}) and not ({" or ".join(LEFT_OUT)})',
         '-p', 'no:cacheprovider', '-W', 'ignore', f'--junit-xml={report}', 'test_models.py'],
        cwd=timm_tests, env={**os.environ, 'TORCH_BACKEND': 'timm_wavemix', 'HF_HUB_OFFLINE': '1', 'TIMEOUT': '600'},
        capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]

    models = defaultdict(set)
    for case in ElementTree.parse(report).iter('testcase'):
        assert case.find('skipped') is None, f'{case.get("name")} was skipped'
        function, _, parameters = case.get('name').partition('[')
        models[function].add(parameters.rstrip(']').split('-')[-1])
    ours = set(timm.list_models(module=MODULES))
    over_other_names = {
        'test_model_default_cfgs': TAGGED,
        'test_model_load_pretrained': SHIPPED,
        'test_model_features_pretrained': SHIPPED,
        'test_prune_intermediate_layers_contract': {
            name for name in ours if '256_12' not in name and '256_16' not in name},
    }
    assert len(models) >= 12  # newer versions of timm add to them
    for function, names in models.items():
        assert names == over_other_names.get(function, ours), function
