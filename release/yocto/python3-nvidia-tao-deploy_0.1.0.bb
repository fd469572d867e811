SUMMARY = "Verified TensorRT engines from trained vision models"
DESCRIPTION = "Builds TensorRT engines from ONNX models, measures their accuracy and runs them, on Jetson with meta-tegra."
HOMEPAGE = "https://developer.nvidia.com/tao-toolkit"
SECTION = "devel/python"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

DEPENDS = "python3-installer-native"

# The slim wheel of release/python/build_wheel.sh --l4t, put beside this recipe in files/.
WHEEL = "nvidia_tao_deploy-${PV}-py3-none-linux_aarch64.whl"
SRC_URI = "file://${WHEEL};unpack=0"

S = "${UNPACKDIR}"

inherit python3native python3-dir

COMPATIBLE_MACHINE = "(tegra)"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    nativepython3 -m installer --interpreter "${USRBINPATH}/env python3" --destdir "${D}" --prefix "${prefix}" \
        "${UNPACKDIR}/${WHEEL}"
    if [ -d "${D}${STAGING_LIBDIR_NATIVE}" ]; then
        bbfatal "the wheel was installed into the build machine's folders"
    fi
}

FILES:${PN} += "${PYTHON_SITEPACKAGES_DIR}"

# TensorRT and CUDA come from meta-tegra; the Python packages from meta-python and meta-onnxruntime or the image's own layer.
RDEPENDS:${PN} = "\
    cuda-libraries \
    nvidia-container-toolkit \
    python3-core \
    python3-json \
    python3-numpy \
    python3-pillow \
    python3-protobuf \
    python3-pyyaml \
    tensorrt-core \
    tensorrt-plugins \
"
RRECOMMENDS:${PN} = "\
    python3-onnx \
    python3-opencv \
    python3-pydantic \
    python3-scipy \
    python3-tqdm \
"
