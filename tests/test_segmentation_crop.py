"""The face crop: where the box lies, what a picture without a face says, and that batches change nothing."""

import numpy as np
import pytest
from PIL import Image
from segmentation_world import GREY, rendered

from segmentation.face_crop import NO_FACE, FaceCropper, crop, crop_corners


@pytest.fixture(scope="module")
def cropper() -> FaceCropper:
    return FaceCropper()


def test_every_rendered_face_is_found_where_its_features_are(cropper):
    images, masks = rendered()
    for hit, mask in zip(cropper.detect(images), masks, strict=True):
        rows, columns = np.nonzero((mask >= 2) & (mask <= 9))
        x0, y0, x1, y1 = hit.box
        assert x0 < columns.min() and columns.max() < x1 and y0 < rows.min() and rows.max() < y1
        assert hit.reason == "" and hit.faces == 1


def test_a_picture_has_the_same_box_alone_and_in_any_batch(cropper):
    images, _ = rendered()
    together = cropper.detect([*images, GREY, *images[::-1]])
    alone = [cropper.detect([image])[0] for image in images]
    assert together[:6] == alone and together[7:] == alone[::-1]


def test_a_picture_without_a_face_says_so(cropper):
    (hit,) = cropper.detect([GREY])
    assert hit.box is None and hit.reason == NO_FACE and hit.faces == 0


def test_a_picture_smaller_than_the_detectors_window_does_not_stop_the_run(cropper):
    hits = cropper.detect([GREY[:19, :50], GREY[:20, :20], rendered()[0][0]])
    assert hits[0].box is None and hits[0].reason == "the picture is smaller than 20x20 pixels"
    assert hits[1].box is None and hits[1].reason == NO_FACE
    assert hits[2].box is not None


def test_candidates_outside_the_picture_are_no_face_and_any_other_failure_is_told(cropper, monkeypatch):
    def fail(error: Exception):
        def detect(*_):
            raise error

        return detect

    for error in (ValueError("torch.cat(): expected a non-empty list of Tensors"), IndexError("shape mismatch")):
        monkeypatch.setattr(cropper._network, "detect", fail(error))
        assert "outside the picture" in cropper.detect([GREY])[0].reason
    monkeypatch.setattr(cropper._network, "detect", fail(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        cropper.detect([GREY])


def test_of_two_faces_the_larger_one_counts(cropper):
    image = rendered()[0][0]
    small = np.asarray(Image.fromarray(image).resize((80, 80)))
    both = np.full((128, 220, 3), 120, np.uint8)
    both[20:100, :80], both[:, 92:] = small, image
    (hit,) = cropper.detect([both])
    assert hit.faces == 2 and hit.box[0] > 92


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ((40.0, 50.0, 80.0, 90.0), (30, 40, 90, 100)),  # a quarter of 40 on each side
        ((40.9, 50.9, 80.9, 90.9), (30, 40, 90, 100)),  # whole pixels by cutting off
        ((10.0, 2.0, 120.0, 126.0), (0, 0, 128, 128)),  # kept in the picture
        ((40.0, 50.0, 60.0, 90.0), (35, 40, 65, 100)),  # each side by its own length
    ],
)
def test_the_crop_is_the_box_grown_by_a_quarter_per_side(box, corners):
    assert crop_corners(box, 128, 128) == corners


def test_the_crop_is_resized_bicubically_to_224_without_keeping_its_shape():
    image = rendered()[0][1]
    box = (40.0, 40.0, 80.0, 100.0)
    x0, y0, x1, y1 = crop_corners(box, 128, 128)
    expected = Image.fromarray(image).crop((x0, y0, x1, y1)).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(crop(image, box), np.asarray(expected))


def test_a_box_outside_the_picture_is_refused():
    with pytest.raises(ValueError, match="no part inside"):
        crop(GREY, (200.0, 10.0, 240.0, 50.0))
