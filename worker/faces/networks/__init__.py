"""The networks, as Keras 3 defines them."""

from typing import Final

BUILDERS: Final = {
    "resnet50": "worker.faces.networks.vggface2:build",
    "senet50": "worker.faces.networks.vggface2:build",
    "vgg16": "worker.faces.networks.vggface2:build",
    "facenet": "worker.faces.networks.facenet:build",
    "face_cnn": "worker.faces.networks.face_cnn:build",
}
"""Who builds each network that a manifest may name: ``"module:function"``, imported only where it is run."""
