"""Which tests must see a wrong change of which module: of those whose faults are silent."""

PIPELINE, TRAIN, PSEUDOLABEL = "tests/pipeline", "tests/train", "tests/pseudolabel"

_STEP = [f"{TRAIN}/test_{name}.py" for name in ("unimatch", "totals", "loop")]
_SOURCES = [f"{TRAIN}/test_{name}.py" for name in ("label_sources", "source_states", "totals")]
_GENERATOR = ["tests/propose/test_masks.py", "tests/propose/test_mask_generator.py"]
_LOOP = [
    f"{TRAIN}/test_{name}.py"
    for name in ("loop", "random_streams", "validation_loop", "resumed_presets")
]


def _tests(folder: str, *names: str) -> list[str]:
    return [f"{folder}/test_{name}.py" for name in names]


TESTS: dict[str, list[str]] = {
    "pipeline/files/storage.py": _tests(PIPELINE, "writing", "durability"),
    "pipeline/images/images.py": [
        *_tests(PIPELINE, "images", "tar"),
        "tests/test_rounded_sizes.py",
    ],
    "pipeline/images/jpeg.py": _tests(PIPELINE, "images"),
    "pipeline/images/overlay.py": _tests(PIPELINE, "overlay"),
    "pipeline/records/arrays.py": _tests(PIPELINE, "arrays", "sharded"),
    "pipeline/records/kept_parts.py": _tests(PIPELINE, "kept_parts"),
    "pipeline/records/label_reader.py": _tests(PIPELINE, "store"),
    "pipeline/records/label_store.py": _tests(PIPELINE, "store"),
    "pipeline/records/part_file.py": _tests(PIPELINE, "manifest", "part_index", "staleness"),
    "pipeline/records/part_index.py": _tests(PIPELINE, "part_index", "manifest"),
    "pipeline/records/sharded_table.py": _tests(PIPELINE, "sharded"),
    "stages/labels/boundary.py": ["tests/labels/test_boundary.py"],
    "stages/labels/confusion.py": ["tests/labels/test_confusion.py"],
    "stages/labels/images.py": ["tests/labels/test_images.py"],
    "stages/labels/pseudo_labels.py": [*_tests(TRAIN, "batch", "stored_crops"), *_SOURCES],
    "stages/models/segmenters/protocol.py": [
        "tests/test_rounded_sizes.py",
        *_tests(TRAIN, "published_protocols"),
    ],
    "stages/models/segmenters/windows.py": [
        "tests/models/segmenters/test_inference.py",
        *_tests(PSEUDOLABEL, "windows"),
    ],
    "stages/propose/generator/candidates.py": _GENERATOR,
    "stages/propose/generator/crops.py": _GENERATOR,
    "stages/propose/generator/mask_generator.py": _GENERATOR,
    "stages/propose/generator/resampling.py": _GENERATOR,
    "stages/propose/generator/run_lengths.py": _GENERATOR,
    "stages/propose/generator/searches.py": _GENERATOR,
    "stages/propose/generator/small_regions.py": _GENERATOR,
    "stages/pseudolabel/calibration.py": _tests(PSEUDOLABEL, "calibration"),
    "stages/pseudolabel/pixels/classify_pixels.py": _tests(PSEUDOLABEL, "classify_pixels"),
    "stages/pseudolabel/pixels/mask_crops.py": _tests(PSEUDOLABEL, "pooling", "sam_clip"),
    "stages/pseudolabel/pixels/pooling.py": _tests(PSEUDOLABEL, "pooling"),
    "stages/pseudolabel/pixels/voting.py": _tests(PSEUDOLABEL, "ensemble"),
    "stages/pseudolabel/pixels/windows.py": _tests(PSEUDOLABEL, "windows"),
    "stages/pseudolabel/stage.py": [
        "tests/test_facts.py",
        *_tests(PSEUDOLABEL, "stage"),
        "tests/evaluate/test_finished_work.py",
    ],
    "stages/pseudolabel/stored_labels.py": _tests(PSEUDOLABEL, "cells", "ensemble"),
    "stages/pseudolabel/work.py": _tests(PSEUDOLABEL, "stage", "files"),
    "stages/train/data/batch.py": _tests(TRAIN, "batch", "crops"),
    "stages/train/data/colors.py": _tests(TRAIN, "photometric", "random_streams"),
    "stages/train/data/crops.py": _tests(TRAIN, "crops", "random_streams", "stored_crops"),
    "stages/train/data/geometry.py": [
        *_tests(TRAIN, "geometry", "crops"),
        "tests/test_rounded_sizes.py",
    ],
    "stages/train/data/random_numbers.py": _tests(TRAIN, "random_streams", "crops"),
    "stages/train/data/scale_check.py": _tests(TRAIN, "sizes"),
    "stages/train/loop/build.py": _tests(TRAIN, "resumed_presets"),
    "stages/train/loop/checkpoint.py": _tests(TRAIN, "checkpoint", "loop"),
    "stages/train/loop/divergence.py": _tests(TRAIN, "divergence"),
    "stages/train/loop/loop.py": [*_LOOP, *_tests(TRAIN, "divergence", "source_states")],
    "stages/train/loop/optimizer.py": _tests(TRAIN, "optimizer", "loop"),
    "stages/train/loop/teacher.py": _tests(TRAIN, "teacher"),
    "stages/train/loop/validation.py": [
        *_tests(TRAIN, "validation_loop", "source_states", "resumed_presets"),
    ],
    "stages/train/records/example_pictures.py": _tests(TRAIN, "watching"),
    "stages/train/records/reporter.py": _tests(TRAIN, "watching", "loop", "event_log"),
    "stages/train/records/tensorboard.py": _tests(TRAIN, "event_log"),
    "stages/train/records/training_log.py": _tests(TRAIN, "loop"),
    "stages/train/step/clean_forward.py": [*_tests(TRAIN, "clean_forward"), *_STEP],
    "stages/train/step/confidence_weights.py": [*_tests(TRAIN, "losses", "label_sources"), *_STEP],
    "stages/train/step/discriminator.py": _tests(TRAIN, "discriminator", "loop"),
    "stages/train/step/label_sources/_stored.py": [*_SOURCES, *_tests(TRAIN, "calibrated")],
    "stages/train/step/label_sources/enhanced.py": _SOURCES,
    "stages/train/step/label_sources/guidance.py": _SOURCES,
    "stages/train/step/label_sources/previous.py": [
        *_tests(TRAIN, "previous", "resumed_presets"),
        *_SOURCES,
    ],
    "stages/train/step/losses.py": [*_tests(TRAIN, "losses"), *_STEP],
    "stages/train/step/pasting.py": [*_tests(TRAIN, "mixing", "class_pasting"), *_STEP],
    "stages/train/step/perturbations/classmix.py": _tests(TRAIN, "class_pasting", "perturbations"),
    "stages/train/step/perturbations/supmix.py": _tests(TRAIN, "class_pasting", "perturbations"),
    "stages/train/step/perturbations/unimatch.py": _tests(TRAIN, "unimatch", "perturbations"),
    "stages/train/step/perturbations/unimatch_v2.py": _tests(TRAIN, "unimatch_v2", "perturbations"),
    "stages/train/step/schedule.py": _tests(TRAIN, "schedule"),
    "stages/train/step/step.py": [*_STEP, *_tests(TRAIN, "discriminator")],
    "stages/train/step/strong_views.py": [*_STEP, *_tests(TRAIN, "perturbations")],
    "stages/train/step/supervised_losses/ohem.py": _tests(TRAIN, "losses"),
    "stages/train/step/weak_predictions.py": [*_STEP, *_tests(TRAIN, "label_sources")],
}
