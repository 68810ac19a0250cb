"""WaveMix models for timm: importing this package registers them with `timm.create_model`."""
from .wavelet import DWT2d, IDWT2d, dwt2d, idwt2d
from .wavemix import WaveMix

__all__ = ['DWT2d', 'IDWT2d', 'WaveMix', 'dwt2d', 'idwt2d']
__version__ = '0.1.0'
