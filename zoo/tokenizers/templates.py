"""The tokens that surround a text: which roles a template needs and how it sets them around one text or a pair.

It knows roles (`bos`, `sep`, ...) and templates by name; which family uses which is said in `files.py`.
"""

from tokenizers import AddedToken, processors

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # the order in which `transformers` adds what is missing

# One text, and a pair; `:1` is the token type of BERT's second sentence.
TEMPLATES = {
    "bert": ("{cls} $A {sep}", "{cls} $A {sep} $B:1 {sep}:1"),
    "roberta": ("{cls} $A {sep}", "{cls} $A {sep} {sep} $B {sep}"),
    "t5": ("$A {eos}", "$A {eos} $B {eos}"),
    "bos": ("{bos} $A", "{bos} $A {bos}:1 $B:1"),
    "bos_eos": ("{bos} $A {eos}", "{bos} $A {eos} {bos}:1 $B:1 {eos}:1"),
}


def complete(roles, template):
    """Roles with RoBERTa's double use of its ends: `<s>` is both cls and bos, `</s>` both sep and eos."""
    roles = {role: token for role, token in roles.items() if token is not None}
    if template == "roberta":
        for one, other in (("cls", "bos"), ("sep", "eos")):
            if one in roles or other in roles:
                roles |= {one: roles.get(one, roles.get(other)), other: roles.get(other, roles.get(one))}
    return roles


def post_processor(template, roles, token_to_id):
    """The processor that writes a template's tokens.

    Args:
        template: a key of `TEMPLATES`.
        roles: dictionary, role -> token.
        token_to_id: function, token -> id.

    Raises:
        ValueError: an unknown template, or one that needs a role the tokenizer has not.
    """
    if template not in TEMPLATES:
        raise ValueError(f"Unknown template {template!r}; known are {', '.join(TEMPLATES)}.")
    patterns = TEMPLATES[template]
    needed = [role for role in ROLES if f"{{{role}}}" in patterns[0]]
    if missing := [role for role in needed if role not in roles]:
        raise ValueError(
            f"The template {template!r} needs a {' and a '.join(missing)} token: give special_tokens "
            f"such as {{{missing[0]!r}: '<{missing[0]}>'}}."
        )
    # Lists, because a token may hold spaces; `{sep}:1` is the token of a role with a type.
    single, pair = (
        [piece.format(**roles) if "{" in piece else piece for piece in pattern.split()] for pattern in patterns
    )
    specials = [(token, token_to_id(token)) for token in dict.fromkeys(roles[role] for role in needed)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=specials)


def special_token(token, role=None, left_space=False):
    """A token matched as it is written; `left_space` lets the mask stand for a word with the space before it."""
    return AddedToken(token, special=True, normalized=False, lstrip=left_space and role == "mask")
