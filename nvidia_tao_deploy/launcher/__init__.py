"""tao_deploy: runs any command of the package in a container with GPUs and mounts.

Imports nothing from the other rooms.
"""
