"""One hypervisor a room; ``provision.driver`` says what each must do."""
