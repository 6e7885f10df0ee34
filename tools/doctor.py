"""Print versions, devices, compilers and loaded kernels, and how to get missing ones."""

from frdet.interrupts import starting

with starting():
    from frdet.ops import doctor


def main() -> None:
    print(doctor.report())


if __name__ == '__main__':
    main()
