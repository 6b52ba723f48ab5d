"""Rows that tables of names share: a layer of ours and the torch module that holds it."""

from zoo.weights import same, transpose

QKV = ("query", "key", "value")


def linear(ours, theirs, bias=True, move=transpose):
    """`kernel` and `bias` of a dense layer."""
    table = {f"{ours}/kernel": (f"{theirs}.weight", move)}
    return table | ({f"{ours}/bias": (f"{theirs}.bias", same)} if bias else {})


def linears(ours, theirs, names, bias=True):
    """Several dense layers below one name of ours and one of theirs."""
    table = {}
    for name, their_name in names.items():
        table |= linear(f"{ours}/{name}", f"{theirs}.{their_name}", bias)
    return table


def norm(ours, theirs, bias=True):
    """`scale` and `bias` of a norm."""
    table = {f"{ours}/scale": (f"{theirs}.weight", same)}
    return table | ({f"{ours}/bias": (f"{theirs}.bias", same)} if bias else {})


def fused(ours, names, theirs, moves, bias=True):
    """Several dense layers of ours in one of theirs."""
    table = {f"{ours}/{name}/kernel": (f"{theirs}.weight", move) for name, move in zip(names, moves)}
    if bias:
        table |= {f"{ours}/{name}/bias": (f"{theirs}.bias", move) for name, move in zip(names, moves)}
    return table


def untied_head(config, theirs="lm_head.weight"):
    """The vocabulary head's own kernel, where it has one."""
    return {} if config.tie_embeddings else {"head/kernel": (theirs, transpose)}


def embeddings(config, theirs, *copies, head="lm_head.weight"):
    """The token embeddings, which a checkpoint may store again under other names, a tied head's among them."""
    names = (theirs, *copies, head) if config.tie_embeddings else (theirs, *copies)
    return {"token/embeddings": (names, same)}
