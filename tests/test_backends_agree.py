"""Every backend against logits kept from `transformers`."""

import numpy as np
import pytest

from tests import goldens
from tests.models import parameters, relative_error, run


@pytest.mark.backends
@pytest.mark.parametrize("name", parameters(goldens.CASES, ["gpt2", "llama", "bert", "t5"]))
def test_logits_equal_the_kept_ones(name):
    x = goldens.batch(name)
    counts = x["padding_mask"] > 0 if "decoder_token_ids" not in x else np.ones((2, 6), bool)
    found = run(goldens.model(name), x)
    assert relative_error(found[counts], np.load(goldens.FILE)[name][counts]) < 1e-5
