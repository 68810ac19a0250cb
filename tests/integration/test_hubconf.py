"""torch.hub finds every model in a clone of the repository."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
import torch
clone = sys.argv[1]
model = torch.hub.load(clone, 'wavemix_16_5', pretrained=True, source='local').eval()
other = torch.hub.load(clone, 'wavemix_lite_8_5', num_classes=3, source='local')
torch.hub.set_dir(sys.argv[2])  # where the clone is as if downloaded
names = torch.hub.list('owner/repo:main', skip_validation=True, trust_repo=True, verbose=False)
file = sys.modules['timm_wavemix'].__file__
with torch.inference_mode():
    print(json.dumps([names, file, model(torch.ones(1, 3, 28, 28))[0].tolist(), other.num_classes]))
"""


def test_torch_hub_lists_and_loads_the_models_of_a_clone(tmp_path):
    if not (ROOT / '.git').exists():
        pytest.skip('not in a git repository, so there is nothing to clone')
    clone = tmp_path / 'owner_repo_main'
    subprocess.run(['git', 'clone', '--quiet', '--depth', '1', ROOT.as_uri(), str(clone)], check=True)
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, str(clone), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names, file, logits, num_classes = json.loads(done.stdout)
    assert set(names) == set(timm.list_models(module='wavemix'))
    assert clone in Path(file).parents
    model = timm.create_model('wavemix_16_5', pretrained=True).eval()
    with torch.inference_mode():
        assert logits == pytest.approx(model(torch.ones(1, 3, 28, 28))[0].tolist(), abs=1e-5)
    assert num_classes == 3
