"""The variables of a model, from its `Config` alone: name -> shape, written down a second time, for tests."""


def variables(config):
    """Names and shapes that a backbone of this `Config` has, and its vocabulary head."""
    d, e, v = config.hidden_dim, config.resolved_embedding_dim, config.vocabulary_size
    found = {"token/embeddings": (v, e)}
    stacks = {"encoder": config.num_layers if config.architecture != "decoder" else 0,
              "decoder": config.resolved_decoder_layers}  # fmt: skip
    for stack, depth in stacks.items():
        if depth:
            found |= {f"{stack}/{name}": shape for name, shape in _stack(config, depth, stack == "decoder").items()}
    if config.head_transform:
        found |= _dense("head/transform", d, e, config.head_transform_bias) | _norm(config, "head/norm", e)
    if not config.tie_embeddings:
        found["head/kernel"] = (e if config.head_transform else d, v)
    return found | ({"head/bias": (v,)} if config.head_bias else {})


def _dense(name, inputs, units, bias):
    return {f"{name}/kernel": (inputs, units)} | ({f"{name}/bias": (units,)} if bias else {})


def _norm(config, name, width):
    bias = config.norm == "layer" and config.norm_bias
    return {f"{name}/scale": (width,)} | ({f"{name}/bias": (width,)} if bias else {})


def _stack(config, depth, causal):
    d, e, first = config.hidden_dim, config.resolved_embedding_dim, config.embedding_projection == "first"
    found, inner = {}, d if first else e
    if config.position == "learned":
        found["position/embeddings"] = (config.max_sequence_length + config.position_offset, inner)
    if config.num_token_types and not causal:
        found["token_type/embeddings"] = (config.num_token_types, inner)
    if config.embedding_norm:
        found |= _norm(config, "embedding_norm", inner)
    if e != d:
        found |= _dense("embedding_projection", e, d, not first)
        found |= _dense("final_projection", d, e, False) if first else {}
    if config.relative == "disentangled":
        found |= {"distance/embeddings": (2 * config.relative_buckets, d), **_norm(config, "distance/norm", d)}
    buckets = {"relative_bias/embeddings": (config.relative_buckets, config.num_heads)}
    if config.relative == "buckets":
        found |= buckets
    for i in range(config.num_distinct_blocks or depth):
        block = _block(config, i, causal and config.architecture == "encoder_decoder")
        block |= buckets if config.relative == "buckets_per_layer" else {}
        if i == 0 and config.convolution:
            block |= _dense("convolution/dense", config.convolution * d, d, True) | _norm(config, "convolution/norm", d)
        found |= {f"block_{i}/{name}": shape for name, shape in block.items()}
    return found | (_norm(config, "final_norm", d) if config.final_norm else {})


def _block(config, layer, cross):
    d, f, h = config.hidden_dim, config.intermediate_dim, config.resolved_head_dim
    found = {}
    for name in ("attn", "cross") if cross else ("attn",):
        for part, heads in (("query", config.num_heads), ("key", config.resolved_key_value_heads),
                            ("value", config.resolved_key_value_heads)):  # fmt: skip
            found |= _dense(f"{name}/{part}", d, heads * h, config.qkv_bias)
        found |= _dense(f"{name}/out", config.num_heads * h, d, config.out_bias)
    for name, heads in (("attn/query_norm", config.num_heads), ("attn/key_norm", config.resolved_key_value_heads)):
        if config.qk_norm == "head":
            found |= _norm(config, name, h)
        if config.qk_norm == "all_heads":
            found |= _norm(config, name, heads * h)
        if config.qk_norm == "each_head":
            found |= {f"{name}/scale_{i}": (h,) for i in range(heads)}
    norms = [] if layer == 0 and not config.first_attn_norm else ["attn_norm"]
    norms += ["cross_norm"] if cross else []
    norms += ["mlp_norm"] if config.parallel != "one_norm" else []
    norms += ["attn_post_norm", "mlp_post_norm"] if config.norm_order == "sandwich" else []
    for name in norms:
        found |= _norm(config, name, d)
    for name, sizes in {"gate": (d, f), "up": (d, f), "down": (f, d)}.items():
        if name != "gate" or config.gated:
            found |= _dense(f"mlp/{name}", *sizes, config.mlp_bias)
    return found
