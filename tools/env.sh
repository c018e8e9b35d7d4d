# Source this (bash): the environment in which every command of the README runs.
_atk_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $- in *u*) _atk_nounset=1; set +u ;; *) _atk_nounset= ;; esac  # ROS's own scripts read unset variables
if [ -f /opt/ros/jazzy/setup.bash ]; then
  . /opt/ros/jazzy/setup.bash
else
  export AMENT_PREFIX_PATH=$_atk_root/.venv CMAKE_PREFIX_PATH=$_atk_root/.venv
fi
export VIRTUAL_ENV=$_atk_root/.venv PATH=$_atk_root/.venv/bin:$PATH
. "$_atk_root/install/local_setup.bash"
export RMW_IMPLEMENTATION=rmw_fastrtps_cpp
# Images travel through shared memory (see the profile). ROS stays on this machine unless told otherwise.
export FASTRTPS_DEFAULT_PROFILES_FILE=${FASTRTPS_DEFAULT_PROFILES_FILE:-$_atk_root/src/atk_bringup/config/fastdds_images.xml}
export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}
export MUJOCO_GL=${MUJOCO_GL:-egl}
[ -z "$_atk_nounset" ] || set -u
unset _atk_root _atk_nounset
