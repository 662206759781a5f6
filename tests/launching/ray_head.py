"""A Ray cluster for a test module: prints its address, lives until its standard input closes."""

import sys

import ray


def main() -> None:
    context = ray.init(
        address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    print(context.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
