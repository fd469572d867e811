"""The verbs, each written once against :class:`~nvidia_tao_deploy.network.Network`."""
