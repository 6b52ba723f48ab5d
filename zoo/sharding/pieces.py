"""Batches that several programs see in pieces, on PyTorch and TensorFlow: what makes the pieces' update the batch's.

Each piece's loss is divided by the labels of an average piece, so the mean of losses and of gradients over the pieces
is the batch's, however the labels lie. It knows no backend: the mesh averages. On JAX one program sees the whole batch.
"""


class Averaging:
    """Stands in for an optimizer: averages gradients over the pieces, then lets the optimizer move the weights.

    Args:
        optimizer: a Keras optimizer.
        average: function of gradients and their variables that returns the averages, None where there is no gradient.
    """

    def __init__(self, optimizer, average):
        self.optimizer, self.average = optimizer, average

    def scale_loss(self, loss):
        """The optimizer's."""
        return self.optimizer.scale_loss(loss)

    def apply(self, grads, variables):
        """The optimizer's, which clips and measures the gradients of the whole batch."""
        self.optimizer.apply(self.average(list(grads), list(variables)), variables)

    def apply_gradients(self, pairs):
        """As `apply`, from pairs of gradient and variable."""
        self.apply(*zip(*pairs))
