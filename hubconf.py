"""The models for torch.hub: `torch.hub.load(REPO, 'wavemix_16_5', pretrained=True)`, arguments as for timm."""
import timm

import timm_wavemix  # noqa: F401  registers the models

dependencies = ['timm', 'torch', 'huggingface_hub', 'safetensors', 'yaml']

globals().update({name: timm.models.model_entrypoint(name) for name in timm.list_models(module='wavemix')})
