"""WaveMix models for timm: importing this package registers them with `timm.create_model`."""
from .mixers import MlpMixer2d
from .wavelet import dwt2d, idwt2d
from .wavemix import TokenMixer, WaveMix

__all__ = ['MlpMixer2d', 'TokenMixer', 'WaveMix', 'dwt2d', 'idwt2d']
__version__ = '0.1.0'
