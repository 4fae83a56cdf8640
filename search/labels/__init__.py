"""Zero-shot labels: names and templates → class weights → calibrated scores.

The weights of a class are the mean of the unit text embeddings of its prompts, renormalised (CLIP,
arXiv:2103.00020, sec. 3.1.4); a photo's logits are the model's logit_scale times its cosines with them.
"""

from search.labels.classifier import DEFAULT_MULTI_THRESHOLD, Classifier, LabelEncoder, LabelOptions
from search.labels.files import label_photos
from search.labels.sets import DEFAULT_TEMPLATES, NONE_OF_THESE, Label, LabelSet, fill
from search.labels.sources import built_in, label_set, load_classnames, load_labels, load_templates
from search.measures import sigmoid

__all__ = [
    "DEFAULT_MULTI_THRESHOLD",
    "DEFAULT_TEMPLATES",
    "NONE_OF_THESE",
    "Classifier",
    "Label",
    "LabelEncoder",
    "LabelOptions",
    "LabelSet",
    "built_in",
    "fill",
    "label_photos",
    "label_set",
    "load_classnames",
    "load_labels",
    "load_templates",
    "sigmoid",
]
