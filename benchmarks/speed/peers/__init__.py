"""What people build or use instead. These modules run with the packages of `.bench/`, in processes of their own."""
