"""What a model is made of, as a table."""

from .model import LanguageModel

def summary(model: LanguageModel, batch_size: int = 1, length: int = 1, depth: int = 3) -> str:
    """A table of the model's modules, laid out as that of torchinfo.summary.

    Class and name, shape of the output, number of parameters; below it the totals. Shapes are those
    of the modules that token ids [batch_size, length] go through; the outputs of the sampler and of
    the model itself are the logits. A module of images, and a list, has "--" there. `depth` is how
    many levels below the model have lines of their own. Nothing is computed. Raises ValueError for
    a size below 1 or a depth below 0.
    """
