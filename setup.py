"""Packaging of `zoo`: one library, three interchangeable backends as extras."""

from pathlib import Path

from setuptools import find_packages, setup

extras = {
    "jax": ["jax>=0.4.35"],
    "tensorflow": ["tensorflow-cpu>=2.18; platform_machine=='x86_64' and sys_platform=='linux'",
                   "tensorflow>=2.18; platform_machine!='x86_64' or sys_platform!='linux'"],
    "tf-text": ["tensorflow>=2.18", "tensorflow-text", "tf-keras"],
    "torch": ["torch>=2.5"],
    "keras-nlp": ["keras-hub"],
    "eval": ["sacrebleu>=2.0", "rouge-score"],
    "lm-eval": ["lm-eval>=0.4.9"],
    "parquet": ["pyarrow"],
    "tensorboard": ["tensorboardX>=2.6"],
    "chat": ["jinja2>=3.1"],
    "search": ["optuna>=4.0"],
    "plan": ["jax[tpu]>=0.4.35"],  # with it the libtpu that belongs to that JAX
    "docs": ["mkdocs-material"],
}  # fmt: skip
extras["bench"] = ["transformers>=5.0", "keras-hub"]
extras["test"] = ["pytest", "pytest-xdist", "ruff", "transformers>=5.0", "sentencepiece", "protobuf", "scikit-learn",
                  *(name for extra in ("tensorboard", "parquet", "chat", "eval", "search")
                    for name in extras[extra])]  # fmt: skip

setup(
    name="keras-zoo",
    version="0.1.0",
    description="Language models on Keras 3: pretrain, fine-tune and generate on JAX, TensorFlow and PyTorch",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["zoo", "zoo.*"]),
    install_requires=[
        "keras>=3.15,<3.17",
        "numpy",
        "absl-py",
        "tokenizers",
        "safetensors>=0.8",
        "ml_dtypes",
        "huggingface_hub",
        "grain",
        "matplotlib",
        "tqdm",
    ],
    extras_require=extras,
)
