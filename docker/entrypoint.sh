#!/bin/bash
# Sources ROS 2 and the workspace, then becomes the command.
# Without -u: the setup files of ROS 2 read unset variables.
set -eo pipefail
# shellcheck disable=SC1091
source /opt/ros/jazzy/setup.bash
# shellcheck disable=SC1091
source /opt/atk/install/local_setup.bash
exec "$@"
