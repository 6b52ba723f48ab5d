"""`zoo.chat`: one more message of a conversation, by a model whose preset has a chat template."""


def chat(lm, messages, variables=None, **arguments):
    """The assistant's answer to a conversation.

    Args:
        lm: a `CausalLM` whose tokenizer has a chat template.
        messages: list of {"role": "system", "user" or "assistant", "content": text}, as the template knows them.
        variables: dictionary of further variables of the template, such as `tools`.
        arguments: those of `generate`, such as `max_new_tokens`, `sampler`, `stop`, `seed`.

    Returns:
        The answer's text, without white space around it.

    Raises:
        ValueError: no template, messages that it refuses, or what `generate` refuses.
        ImportError: jinja2 is not installed.

    Example:

    ```python
    import zoo

    lm = zoo.CausalLM.from_preset("hf://HuggingFaceTB/SmolLM2-135M-Instruct")
    messages = [{"role": "user", "content": "Name a colour."}]
    answer = zoo.chat(lm, messages, max_new_tokens=32)
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Another."}]
    ```
    """
    if lm.tokenizer is None:
        raise ValueError("This model has no tokenizer, so it cannot chat: give it one with a chat template.")
    text = lm.tokenizer.apply_chat_template(messages, **(variables or {}))
    return lm.generate(text, echo=False, add_special_tokens=False, **arguments).strip()
