"""The object's mesh, in the frame of transforms.json: python examples/mesh_of_the_object.py CONFIG"""

import sys

from surface_sos_ns import load_run

run = load_run(sys.argv[1])
mesh = run.mesh(resolution=128)  # a trimesh.Trimesh with colours
print(f"{len(mesh.vertices)} vertices, from {mesh.bounds[0]} to {mesh.bounds[1]}, volume {mesh.volume:.4f}")
mesh.export("object.ply")
