"""The ontology of diagnoses: one canonical name for all that the publishers call a disease, its parent, benign or not.

Two ways into it. `DIAGNOSES` and their synonyms are phrases that may be read out of running text. `LABEL_CODES` are
whole labels of publishers' tables ("df", "drug induced pigmentary changes") which would mislead in running text.
A label that neither of them knows stays unmapped: it is listed for the reader, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

BENIGN, MALIGNANT, INFLAMMATORY = "benign", "malignant", "inflammatory"


@dataclass(frozen=True)
class Diagnosis:
    """One entry of the ontology.

    Attributes:
        name: canonical name, lower case.
        malignancy: "benign", "malignant" (in-situ and pre-malignant tumours included, as HAM10000's and MIDAS' labels
            have it) or "inflammatory" (infections and other non-neoplastic disease included).
        parent: name of the entry above, or "" for a root.
        synonyms: other phrases that stand for it in running text.
    """

    name: str
    malignancy: str
    parent: str = ""
    synonyms: tuple[str, ...] = ()


def _ontology() -> dict[str, Diagnosis]:
    b, m, i = BENIGN, MALIGNANT, INFLAMMATORY
    entries = (
        # -- pigmented, melanocytic
        Diagnosis("melanocytic nevus", b, "", ("nevus", "naevus", "melanocytic naevus", "mole", "nevocytic nevus")),
        Diagnosis("dysplastic nevus", b, "melanocytic nevus", ("atypical nevus", "clark nevus")),
        Diagnosis("blue nevus", b, "melanocytic nevus", ("blue naevus",)),
        Diagnosis("spitz nevus", b, "melanocytic nevus", ("pigmented spindle cell nevus of reed", "reed nevus")),
        Diagnosis("atypical melanocytic lesion", b, "melanocytic nevus", ("aimp", "melanocytic tumor")),
        Diagnosis("melanoma", m, "", ("malignant melanoma",)),
        Diagnosis("melanoma in situ", m, "melanoma", ("lentigo maligna",)),
        Diagnosis("nodular melanoma", m, "melanoma"),
        Diagnosis("acral lentiginous melanoma", m, "melanoma", ("melanoma acral lentiginous", "acral melanoma")),
        Diagnosis("superficial spreading melanoma", m, "melanoma", ("superficial spreading melanoma ssm",)),
        # -- keratinocytic
        Diagnosis("benign keratosis", b, "", ("benign keratosis like lesion", "lichen planus like keratosis")),
        Diagnosis("seborrheic keratosis", b, "benign keratosis", ("seborrhoeic keratosis", "seborrheic wart")),
        Diagnosis("irritated seborrheic keratosis", b, "seborrheic keratosis", ("seborrheic keratosis irritated",)),
        Diagnosis("solar lentigo", b, "benign keratosis", ("lentigo", "solar lentigines", "age spot")),
        Diagnosis("lichenoid keratosis", b, "benign keratosis"),
        Diagnosis("actinic keratosis", m, "", ("solar keratosis", "akiec", "intraepithelial carcinoma")),
        Diagnosis("squamous cell carcinoma", m, "", ("scc", "squamous carcinoma")),
        Diagnosis(
            "squamous cell carcinoma in situ",
            m,
            "squamous cell carcinoma",
            ("bowen disease", "bowens disease", "bowen's disease", "sccis", "scc in situ"),
        ),
        Diagnosis("keratoacanthoma", m, "squamous cell carcinoma", ("squamous cell carcinoma keratoacanthoma",)),
        Diagnosis("basal cell carcinoma", m, "", ("bcc", "basalioma", "basal carcinoma")),
        Diagnosis("nodular basal cell carcinoma", m, "basal cell carcinoma", ("basal cell carcinoma nodular",)),
        Diagnosis("superficial basal cell carcinoma", m, "basal cell carcinoma", ("basal cell carcinoma superficial",)),
        Diagnosis("verruca vulgaris", b, "", ("wart", "common wart", "viral wart")),
        Diagnosis("inverted follicular keratosis", b, "benign keratosis"),
        Diagnosis("molluscum contagiosum", i),
        Diagnosis("condyloma acuminatum", i, "", ("condyloma accuminatum", "genital wart")),
        # -- vascular and fibrous
        Diagnosis("vascular lesion", b, "", ("vascular tumor", "vascular tumour")),
        Diagnosis("hemangioma", b, "vascular lesion", ("haemangioma", "angioma", "cherry angioma")),
        Diagnosis("arteriovenous hemangioma", b, "hemangioma"),
        Diagnosis("pyogenic granuloma", b, "vascular lesion"),
        Diagnosis("angiokeratoma", b, "vascular lesion"),
        Diagnosis("kaposi sarcoma", m, "", ("kaposi's sarcoma",)),
        Diagnosis("dermatofibroma", b, "", ("fibrous histiocytoma",)),
        Diagnosis("fibrous papule", b),
        Diagnosis("acrochordon", b, "", ("skin tag", "fibroepithelial polyp")),
        Diagnosis("neurofibroma", b),
        Diagnosis("lipoma", b),
        Diagnosis("keloid", b),
        Diagnosis("scar", b),
        Diagnosis("epidermal cyst", b, "", ("epidermoid cyst", "sebaceous cyst")),
        Diagnosis("eccrine poroma", b, "", ("poroma",)),
        Diagnosis("trichilemmoma", b),
        Diagnosis("nevus lipomatosus superficialis", b),
        Diagnosis("epidermal nevus", b),
        Diagnosis("xanthogranuloma", b, "", ("juvenile xanthogranuloma",)),
        Diagnosis("metastatic carcinoma", m),
        Diagnosis("sebaceous carcinoma", m),
        Diagnosis("cutaneous lymphoma", m, "", ("lymphoma", "cutaneous t cell lymphoma")),
        Diagnosis("mycosis fungoides", m, "cutaneous lymphoma"),
        # -- inflammatory, infectious, pigmentary
        Diagnosis("psoriasis", i, "", ("plaque psoriasis", "psoriasis vulgaris")),
        Diagnosis("eczema", i, "", ("dermatitis", "eczematous dermatitis", "eczema spongiotic dermatitis")),
        Diagnosis("atopic dermatitis", i, "eczema"),
        Diagnosis("seborrheic dermatitis", i, "eczema"),
        Diagnosis("contact dermatitis", i, "eczema", ("allergic contact dermatitis",)),
        Diagnosis("tinea", i, "", ("dermatophytosis",)),
        Diagnosis("tinea corporis", i, "tinea", ("ringworm",)),
        Diagnosis("tinea pedis", i, "tinea"),
        Diagnosis("onychomycosis", i, "tinea"),
        Diagnosis("vitiligo", i),
        Diagnosis("hyperpigmentation", i),
        Diagnosis("lichen planus", i),
        Diagnosis("lupus erythematosus", i),
        Diagnosis("prurigo nodularis", i),
        Diagnosis("acne", i, "", ("acne vulgaris", "acne cystic")),
        Diagnosis("rosacea", i),
        Diagnosis("folliculitis", i),
        Diagnosis("urticaria", i),
        Diagnosis("granuloma annulare", i),
        Diagnosis("sarcoidosis", i),
        Diagnosis("scabies", i),
        Diagnosis("drug eruption", i),
        Diagnosis("pityriasis rosea", i),
        Diagnosis("dermatomyositis", i),
        Diagnosis("morphea", i),
        # -- seldom, but in the publishers' tables
        Diagnosis("halo nevus", b, "melanocytic nevus"),
        Diagnosis("congenital nevus", b, "melanocytic nevus", ("congenital melanocytic nevus",)),
        Diagnosis("becker nevus", b, "", ("becker's nevus",)),
        Diagnosis("acral melanotic macule", b),
        Diagnosis("nevus sebaceous", b, "", ("nevus sebaceous of jadassohn",)),
        Diagnosis("nevus comedonicus", b, "", ("naevus comedonicus",)),
        Diagnosis("morpheaform basal cell carcinoma", m, "basal cell carcinoma", ("basal cell carcinoma morpheiform",)),
        Diagnosis("cystic basal cell carcinoma", m, "basal cell carcinoma", ("solid cystic basal cell carcinoma",)),
        Diagnosis("clear cell acanthoma", b),
        Diagnosis("pilomatricoma", b, "", ("pilomatrixoma",)),
        Diagnosis("pilar cyst", b, "", ("trichilemmal cyst",)),
        Diagnosis("mucous cyst", b, "", ("digital mucous cyst",)),
        Diagnosis("syringoma", b),
        Diagnosis("chondroid syringoma", b),
        Diagnosis("syringocystadenoma papilliferum", b),
        Diagnosis("trichofolliculoma", b),
        Diagnosis("acquired digital fibrokeratoma", b, "", ("digital fibrokeratoma",)),
        Diagnosis("angioleiomyoma", b),
        Diagnosis("glomangioma", b, "vascular lesion", ("glomus tumor",)),
        Diagnosis("lymphangioma", b, "vascular lesion"),
        Diagnosis("port wine stain", b, "vascular lesion", ("nevus flammeus",)),
        Diagnosis("neuroma", b),
        Diagnosis("cellular neurothekeoma", b),
        Diagnosis("verruciform xanthoma", b),
        Diagnosis("xanthoma", b),
        Diagnosis("fordyce spot", b),
        Diagnosis("leukemia cutis", m),
        Diagnosis("blastic plasmacytoid dendritic cell neoplasm", m),
        Diagnosis("langerhans cell histiocytosis", i),
        Diagnosis("neurofibromatosis", i),
        Diagnosis("tuberous sclerosis", i),
        Diagnosis("xeroderma pigmentosum", i),
        Diagnosis("lymphocytic infiltration", i),
        Diagnosis("reactive lymphoid hyperplasia", i),
        Diagnosis("foreign body granuloma", i),
        Diagnosis("abscess", i),
        Diagnosis("hematoma", i, "", ("haematoma",)),
        Diagnosis("skin injury", i, "", ("abrasions ulcerations and physical injuries",)),
        Diagnosis("coccidioidomycosis", i),
        Diagnosis("graft versus host disease", i, "", ("graft vs host disease",)),
        Diagnosis("acral hyperkeratosis", i, "", ("focal acral hyperkeratosis",)),
        Diagnosis("porokeratosis", i, "", ("porokeratosis of mibelli",)),
        Diagnosis("actinic porokeratosis", i, "porokeratosis", ("disseminated actinic porokeratosis",)),
        Diagnosis("neutrophilic dermatosis", i, "", ("neutrophilic dermatoses",)),
        Diagnosis("photodermatosis", i, "", ("photodermatoses",)),
        Diagnosis("scleroderma", i),
        Diagnosis("pityriasis rubra pilaris", i),
        Diagnosis("pityriasis lichenoides chronica", i),
        Diagnosis("erythema multiforme", i),
        Diagnosis("erythema nodosum", i),
        Diagnosis("erythema annulare centrifugum", i),
        Diagnosis("erythema elevatum diutinum", i),
        Diagnosis("hailey hailey disease", i),
        Diagnosis("darier disease", i, "", ("dariers disease", "darier's disease")),
        Diagnosis("behcet disease", i, "", ("behcets disease", "behcet's disease")),
        Diagnosis("lyme disease", i),
        Diagnosis("tungiasis", i),
        Diagnosis("myiasis", i),
        Diagnosis("nematode infection", i),
        Diagnosis("pediculosis", i, "", ("pediculosis lids",)),
        Diagnosis("confluent and reticulated papillomatosis", i),
        Diagnosis("porphyria", i),
        Diagnosis("ehlers danlos syndrome", i),
        Diagnosis("stevens johnson syndrome", i),
        Diagnosis("cutaneous telangiectasia", i),
        Diagnosis("fixed drug eruption", i, "drug eruption"),
        Diagnosis("necrobiosis lipoidica", i),
        Diagnosis("urticaria pigmentosa", i),
        Diagnosis("subacute lupus", i, "lupus erythematosus", ("subacute cutaneous lupus",)),
        Diagnosis("scleromyxedema", i),
        Diagnosis("cutaneous mucinosis", i),
        Diagnosis("cheilitis", i),
        Diagnosis("incontinentia pigmenti", i),
        Diagnosis("lichen simplex", i, "", ("lichen simplex chronicus", "neurodermatitis")),
        Diagnosis("lichen amyloidosis", i),
        Diagnosis("acrodermatitis enteropathica", i),
        Diagnosis("acanthosis nigricans", i),
        Diagnosis("rhinophyma", i, "rosacea"),
        Diagnosis("hidradenitis suppurativa", i, "", ("hidradenitis",)),
        Diagnosis("dyshidrotic eczema", i, "eczema"),
        Diagnosis("stasis dermatitis", i, "eczema"),
        Diagnosis("perioral dermatitis", i),
        Diagnosis("calcinosis cutis", i),
        Diagnosis("keratosis pilaris", i),
        Diagnosis("aplasia cutis", i),
        Diagnosis("epidermolysis bullosa", i),
        Diagnosis("pemphigoid gestationis", i, "", ("herpes gestationis",)),
        Diagnosis("ichthyosis vulgaris", i),
        Diagnosis("livedo reticularis", i),
        Diagnosis("paronychia", i),
        Diagnosis("pustular psoriasis", i, "psoriasis"),
        Diagnosis("factitial dermatitis", i, "", ("dermatitis artefacta",)),
        Diagnosis("striae distensae", i),
        Diagnosis("milium", b),
        Diagnosis("inflammatory skin disease", i, "", ("non neoplastic", "non neoplastic inflammatory infectious")),
    )
    return {entry.name: entry for entry in entries}


DIAGNOSES: dict[str, Diagnosis] = _ontology()

# Label codes of the publishers: whole labels only, never looked for in running text ("df" or "ak" mean other things).
LABEL_CODES: dict[str, str] = {
    "nv": "melanocytic nevus", "nev": "melanocytic nevus", "mel": "melanoma", "bkl": "benign keratosis",
    "sek": "seborrheic keratosis", "sk": "seborrheic keratosis", "akiec": "actinic keratosis",
    "ack": "actinic keratosis", "ak": "actinic keratosis", "vasc": "vascular lesion", "vascular": "vascular lesion",
    "df": "dermatofibroma", "bcc": "basal cell carcinoma", "scc": "squamous cell carcinoma",
    "sccis": "squamous cell carcinoma in situ", "nodular melanoma (nm)": "nodular melanoma",
    "melanocytic lesion, possible re excision (severe, spitz, aimp)": "atypical melanocytic lesion",
    "melanocytic tumor, possible re excision (severe, spitz, aimp)": "atypical melanocytic lesion",
    "melanocytic lesion with possible re excision (severe spitz nevus, aimp)": "atypical melanocytic lesion",
    "non neoplastic, inflammatory, infectious": "inflammatory skin disease",
    "non neoplastic inflammatory infectious": "inflammatory skin disease",
    "atypical spindle cell nevus of reed": "spitz nevus",
    "subcutaneous t cell lymphoma": "cutaneous lymphoma",
    # Names that are too general, or a visible structure's, to be looked for in running text.
    "milia": "milium", "telangiectases": "cutaneous telangiectasia", "striae": "striae distensae",
    "fixed eruptions": "fixed drug eruption", "lupus subacute": "subacute lupus", "mucinosis": "cutaneous mucinosis",
    "stasis edema": "stasis dermatitis", "granuloma pyogenic": "pyogenic granuloma", "xanthomas": "xanthoma",
    "porokeratosis actinic": "actinic porokeratosis", "neurotic excoriations": "skin injury",
    "papilomatosis confluentes and reticulate": "confluent and reticulated papillomatosis",
    "erythema annulare centrifigum": "erythema annulare centrifugum", "tick bite": "skin injury",
    "acquired autoimmune bullous diseaseherpes gestationis": "pemphigoid gestationis",
    "drug induced pigmentary changes": "hyperpigmentation", "sun damaged skin": "photodermatosis",
    # The ISIC Archive's hierarchy.
    "solar or actinic keratosis": "actinic keratosis", "pigmented benign keratosis": "benign keratosis",
    "melanoma invasive": "melanoma", "squamous cell carcinoma, invasive": "squamous cell carcinoma",
    "melanoma, invasive": "melanoma", "squamous cell carcinoma in situ, bowen's disease":
    "squamous cell carcinoma in situ", "squamous cell carcinoma in situ, bowens disease":
    "squamous cell carcinoma in situ", "benign soft tissue proliferations vascular": "vascular lesion",
    "angiofibroma, fibrous papule": "fibrous papule",
}  # fmt: skip


def agree(one: str, two: str) -> bool:
    """Tell whether two canonical names can be said of one lesion: the same, or one above the other."""
    return one in lineage(two) or two in lineage(one)


def lineage(name: str) -> tuple[str, ...]:
    """Return a canonical name and everything above it, nearest first."""
    names = [name]
    while DIAGNOSES[names[-1]].parent:
        names.append(DIAGNOSES[names[-1]].parent)
    return tuple(names)
