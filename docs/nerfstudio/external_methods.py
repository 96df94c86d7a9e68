"""The entry for nerfstudio's list of external methods; see the README beside it. A test reads it with their class."""

from nerfstudio.configs.external_methods import ExternalMethod, external_methods

# Surface-SOS
external_methods.append(
    ExternalMethod(
        """[bold yellow]Surface-SOS[/bold yellow]
For more information visit: https://docs.nerf.studio/nerfology/methods/surface_sos.html

To enable Surface-SOS, you must install it first by running:
  [grey]pip install git+https://github.com/OWNER/surface_sos_ns[/grey]""",
        configurations=[
            ("surface-sos", "Surface-SOS. Object segmentation through surfaces, for a GPU"),
            ("surface-sos-lite", "Surface-SOS. Smaller and shorter, for a CPU or a laptop"),
            ("surface-sos-paper", "Surface-SOS. As in the paper"),
        ],
        pip_package="git+https://github.com/OWNER/surface_sos_ns",
    )
)
