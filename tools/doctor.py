"""Prints versions, devices, compilers and which kernels are loaded, and what to do about what is missing."""

from frdet.ops import doctor


def main() -> None:
    print(doctor.report())


if __name__ == '__main__':
    main()
