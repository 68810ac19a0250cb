"""WaveMix models for timm: importing this package registers them with `timm.create_model`."""
from .wavelet import dwt2d, idwt2d
from .wavemix import WaveMix

__all__ = ['WaveMix', 'dwt2d', 'idwt2d']
__version__ = '0.1.0'
