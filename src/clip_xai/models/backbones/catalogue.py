"""The backbones that have a name: what each is, where its weights are published, and under which terms."""

from __future__ import annotations

from dataclasses import dataclass

from clip_xai.data.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
MEDCLIP_MEAN, MEDCLIP_STD = (0.5862785803043838,) * 3, (0.27950088968644304,) * 3


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        architecture: ``tiny``, one of this package's own, or a model name of open_clip.
        pretrained: Where its weights are published; None where a name of open_clip alone is meant.
        licence: Terms of the published weights, as their publisher states them.
        trained_on: What the weights have seen.
        tokenizer: The tokenizer, for people.
        preprocess: The evaluation preprocessing; what lies beside the weights comes first.
        preprocesses_otherwise: The publisher's own code prepares photographs as stated here, whatever lies there.
        library: ``timm`` or ``torchvision`` for classifiers.
    """

    architecture: str
    pretrained: str | None
    licence: str
    trained_on: str
    tokenizer: str
    preprocess: Preprocess
    preprocesses_otherwise: bool = False
    library: str | None = None


_OPENAI = Preprocess(mean=CLIP_MEAN, std=CLIP_STD)
_IMAGENET = Preprocess(mean=IMAGENET_MEAN, std=IMAGENET_STD)
_BPE = "CLIP BPE, 49,408"
_PUBMED = "PubMedBERT WordPiece, 30,522"

CATALOGUE: dict[str, Entry] = {
    "tiny": Entry(
        "tiny", "embedded:tiny", "MIT", "rendered skin photographs", "byte-level BPE", Preprocess(image_size=96)
    ),
    "dermlip": Entry(
        "ViT-B-16", "hf-hub:redlessone/DermLIP_ViT-B-16", "CC BY-NC 4.0", "Derm1M, dermatology", _BPE, _OPENAI
    ),
    "dermlip_panderm": Entry(
        "PanDerm-base-w-PubMed-256",
        "hf-hub:redlessone/DermLIP_PanDerm-base-w-PubMed-256",
        "CC BY-NC-ND 4.0",
        "Derm1M, dermatology",
        _PUBMED,
        _OPENAI,
    ),
    "biomedclip": Entry(
        "BiomedCLIP",
        "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        "MIT",
        "PMC-15M, biomedical figures",
        _PUBMED,
        _OPENAI,
    ),
    "pubmedclip": Entry(
        "hf-clip-vit-base-patch32",
        "hf-hub:flaviagiammarino/pubmed-clip-vit-base-patch32",
        "MIT",
        "ROCO, radiology",
        _BPE,
        _OPENAI,
    ),
    "monet": Entry(
        "hf-clip-vit-large-patch14",
        "hf-hub:suinleelab/monet",
        "see its page",
        "dermatology textbooks and articles",
        _BPE,
        Preprocess(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        preprocesses_otherwise=True,
    ),
    "whylesionclip": Entry(
        "ViT-L-14",
        "hf-hub:yyupenn/whylesionclip",
        "see its page",
        "ISIC with written reports",
        _BPE,
        Preprocess(mean=HALF, std=HALF),
    ),
    "openai_b32": Entry("ViT-B-32-quickgelu", "openai", "MIT", "400 M pairs of the web", _BPE, _OPENAI),
    "openai_l14": Entry("ViT-L-14-quickgelu", "openai", "MIT", "400 M pairs of the web", _BPE, _OPENAI),
    "openai_rn50": Entry("RN50-quickgelu", "openai", "MIT", "400 M pairs of the web", _BPE, _OPENAI),
    "openai_rn50x4": Entry("RN50x4-quickgelu", "openai", "MIT", "400 M pairs of the web", _BPE, _OPENAI),
    "medsiglip": Entry(
        "hf-siglip-so400m-patch14-448",
        "hf-hub:google/medsiglip-448",
        "Health AI Developer Foundations (gated)",
        "medical images, dermatology among them",
        "SentencePiece, 32,000",
        Preprocess(image_size=448, resize="squash", interpolation="bilinear", mean=HALF, std=HALF),
    ),
    "medclip": Entry(
        "medclip-swin-tiny",
        "weights/medclip-vit",
        "see its page",
        "CheXpert and MIMIC-CXR, radiology",
        "Bio_ClinicalBERT WordPiece, 28,996",
        Preprocess(resize="longest", mean=MEDCLIP_MEAN, std=MEDCLIP_STD, grey=True),
    ),
    "hf": Entry("hf", None, "as its publisher says", "any CLIP or SigLIP in transformers' format", "its own", _OPENAI),
    "open_clip": Entry("ViT-B-32", None, "as its publisher says", "any model of open_clip", _BPE, _OPENAI),
    "timm": Entry(
        "resnet18", None, "as its publisher says", "any classifier of timm", "none", _IMAGENET, library="timm"
    ),
    "torchvision": Entry(
        *("resnet18", None, "as its publisher says", "any classifier of torchvision", "none", _IMAGENET),
        library="torchvision",
    ),
}
