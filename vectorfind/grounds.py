"""What each step of stage 6 rests on: the modules whose change makes its results stale."""

_MODELS = (
    "stylegan.generator",
    "stylegan.mapping",
    "stylegan.layers",
    "property_score.property_cnn",
    "property_score.second_grader",
    "cnn.stack",
    "cnn.fit",
)
_EDITING = (
    "pipeline.seeds",
    "vectorfind.bench",
    "vectorfind.names",
    "vectorfind.directions",
    "vectorfind.groups",
    "vectorfind.closed_loop",
    "vectorfind.model_loop",
    "vectorfind.score_model",
    "vectorfind.network_editor",
    "vectorfind.gradient_net",
    "vectorfind.calibration",
)
# What reads a picture by parser and geometry.
_PARSING = (
    "property_score.head_pose",
    "segmentation.facexformer",
    "segmentation.facexformer_parser",
    "property_score.scorer",
    "property_score.measure",
    "property_score.algorithm_v1",
    "property_score.algorithm_v2",
    "property_score.facemaps",
    "property_score.hair_texture",
    "property_score.hairstyle",
    "property_score.normalisation",
    "segmentation.parser",
    "segmentation.parsenet",
    "segmentation.classes",
    "segmentation.face_crop",
    "stylegan.sampling",
    "virtual_face.oracle",
    "virtual_face.population",
)
_GRADING = ("vectorfind.graders", "property_score.graders", *_PARSING)
# What the oracle reads, and how pictures are compared.
_READING = ("stylegan.sampling", "virtual_face.oracle", "virtual_face.population")
_TESTING = ("vectorfind.protocol", "vectorfind.evaluate", "vectorfind.grid", "pipeline.report", *_GRADING)
CODE = {
    "pool": ("vectorfind.pool", "vectorfind.bench", "vectorfind.names", "pipeline.seeds", *_MODELS),
    "directions": (
        "vectorfind.finding",
        "vectorfind.published",
        "vectorfind.models",
        "property_score.graders",
        "vectorfind.appearance",
        "cnn.filter_cnn",
        "vectorfind.grid",
        "vectorfind.methods",
        "vectorfind.mended",
        "vectorfind.network_training",
        *_PARSING,
        *_EDITING,
        *_MODELS,
    ),
    "test": (*_TESTING, "vectorfind.tables", *_EDITING, *_MODELS),
    "judge": (*_TESTING, *_EDITING, *_MODELS),
    "reach": ("vectorfind.reach", *_EDITING, *_MODELS),
    "select": ("vectorfind.selection", "vectorfind.published", "vectorfind.figures", *_TESTING, *_EDITING, *_MODELS),
    "effects": ("vectorfind.effects", *_READING, *_TESTING, *_EDITING, *_MODELS),
    # All that a row of a sweep goes through.
    "sweep": (
        "vectorfind.sweep",
        "vectorfind.finding",
        "vectorfind.models",
        "vectorfind.appearance",
        "cnn.filter_cnn",
        "vectorfind.methods",
        "vectorfind.mended",
        "vectorfind.network_training",
        "vectorfind.effects",
        *_READING,
        *_TESTING,
        *_EDITING,
        *_MODELS,
    ),
    "report": (
        "vectorfind.report",
        "vectorfind.figures",
        "vectorfind.space",
        "vectorfind.finding",
        "stylegan.sampling",
        "pipeline.report",
        "pipeline.sheets",
        *_EDITING,
    ),
}
