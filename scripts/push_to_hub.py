"""Push a model to the Hugging Face Hub: the same as `python -m timm_wavemix push`."""
from timm_wavemix.hub import main

if __name__ == '__main__':
    main()
